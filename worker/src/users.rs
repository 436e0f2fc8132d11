//! Users and groups by the files of an image: `/etc/passwd` and `/etc/group` as text.

use kiln_graph::{Owner, Principal};

use crate::error::CopyError;

/// A user number and a group number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Reads `USER` as written: `name`, `uid`, `name:group`, `uid:gid`; empty is root.
pub(crate) fn owner_of_user(user: &str) -> Owner {
    let principal = |word: &str| match word.parse() {
        Ok(id) => Principal::Id(id),
        Err(_) => Principal::Name(word.to_owned()),
    };
    let (user, group) = user
        .split_once(':')
        .map_or((user, None), |(u, g)| (u, Some(g)));
    let user = if user.is_empty() { "0" } else { user };
    Owner {
        user: principal(user),
        group: group.filter(|g| !g.is_empty()).map(principal),
    }
}

/// Returns true if resolving needs the image's files.
pub(crate) fn needs_files(owner: &Owner) -> bool {
    let is_name = |principal: &Principal| matches!(principal, Principal::Name(_));
    is_name(&owner.user) || owner.group.as_ref().is_some_and(is_name)
}

/// Turns names into numbers. A number without a group is its own group, as BuildKit has it.
pub(crate) fn resolve(owner: &Owner, passwd: &str, group: &str) -> Result<Ids, CopyError> {
    let (uid, own_gid) = match &owner.user {
        Principal::Id(id) => (*id, *id),
        Principal::Name(name) => user(passwd, name).ok_or_else(|| CopyError::UnknownName {
            kind: "user",
            name: name.clone(),
            file: "passwd",
        })?,
    };
    let gid = match &owner.group {
        None => own_gid,
        Some(Principal::Id(id)) => *id,
        Some(Principal::Name(name)) => {
            group_id(group, name).ok_or_else(|| CopyError::UnknownName {
                kind: "group",
                name: name.clone(),
                file: "group",
            })?
        }
    };
    for (kind, id, file) in [("user", uid, "passwd"), ("group", gid, "group")] {
        // To the kernel this number means "leave as it is".
        if id == u32::MAX {
            return Err(CopyError::UnknownName {
                kind,
                name: id.to_string(),
                file,
            });
        }
    }
    Ok(Ids { uid, gid })
}

/// As [`resolve`] for what no process runs as: an unknown user is root, an unknown group the
/// user's own, as BuildKit has it.
pub(crate) fn resolve_leniently(owner: &Owner, passwd: &str, group: &str) -> Ids {
    let alone = Owner {
        user: owner.user.clone(),
        group: None,
    };
    let root = Owner {
        user: Principal::Id(0),
        group: None,
    };
    let known = resolve(&alone, passwd, group).is_ok();
    let user = if known { alone } else { root };
    let with_group = Owner {
        user: user.user.clone(),
        group: owner.group.clone(),
    };
    resolve(&with_group, passwd, group)
        .or_else(|_| resolve(&user, passwd, group))
        .unwrap_or(Ids { uid: 0, gid: 0 })
}

fn user(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        found.then(|| Some((uid.parse().ok()?, gid.parse().ok()?)))?
    })
}

fn group_id(group: &str, name: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let gid = fields.nth(1)?;
        found.then(|| gid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/false\nbad\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:web\n";

    #[test]
    fn names_and_numbers() {
        for (user, uid, gid) in [
            ("", 0, 0),
            ("web", 33, 34),
            ("web:staff", 33, 50),
            ("web:7", 33, 7),
            ("5", 5, 5),
            ("5:staff", 5, 50),
            ("5:6", 5, 6),
        ] {
            let ids = resolve(&owner_of_user(user), PASSWD, GROUP).unwrap();
            assert_eq!((ids.uid, ids.gid), (uid, gid), "{user:?}");
        }
    }

    #[test]
    fn leniently_each_part_falls_back_for_itself() {
        for (user, uid, gid) in [
            ("5:nope", 5, 5),
            ("web:nope", 33, 34),
            ("nope:5", 0, 5),
            ("nope", 0, 0),
            ("web", 33, 34),
        ] {
            let ids = resolve_leniently(&owner_of_user(user), PASSWD, GROUP);
            assert_eq!((ids.uid, ids.gid), (uid, gid), "{user:?}");
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = resolve(&owner_of_user("nobody:staff"), PASSWD, GROUP).unwrap_err();
        assert!(error.to_string().contains("user `nobody`"), "{error}");
        assert!(resolve(&owner_of_user("4294967295"), PASSWD, GROUP).is_err());
        let error = resolve(&owner_of_user("web:x"), PASSWD, GROUP).unwrap_err();
        assert!(error.to_string().contains("group `x`"), "{error}");
    }
}
