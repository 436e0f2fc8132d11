//! Who `USER` means, by the root's own `/etc/passwd` and `/etc/group`.
//!
//! Only decides; [`crate::container`] reads the two files and [`crate::identity`] applies the
//! result. The rules are those that container engines share: a number is always an id, the first
//! matching line wins, supplementary groups come only with a user that has an entry and no
//! explicit group. Unlike there, a malformed line is ignored instead of read as id 0.

/// Ids of a step's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; the primary group is among them.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Largest id that is not the "no change" value of system calls.
const MAX_ID: u32 = i32::MAX.cast_unsigned();

/// Returns whom `user` means, or why it means nobody.
pub(crate) fn resolve(user: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (name, group_name) = user.split_once(':').unwrap_or((user, ""));
    let name = if name.is_empty() { "0" } else { name };
    let entry = find_user(name, passwd);
    let uid = match (&entry, id(name)) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) if is_number(name) => return Err("the id is out of range".to_owned()),
        (None, None) => return Err("no matching entries in passwd file".to_owned()),
    };
    let is_plain_ids = id(name).is_some() && id(group_name).is_some();
    let (gid, mut groups) = if !group_name.is_empty() {
        (find_group(group_name, group)?, Vec::new())
    } else if let (Some(entry), false) = (&entry, is_plain_ids) {
        (entry.gid, groups_of(entry.name, group))
    } else {
        (0, Vec::new())
    };
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home_of(uid, passwd),
    })
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        Some(User {
            name: fields.next()?,
            uid: id(fields.nth(1)?)?,
            gid: id(fields.next()?)?,
            home: fields.nth(1).unwrap_or(""),
        })
    })
}

fn find_user<'a>(name: &str, passwd: &'a str) -> Option<User<'a>> {
    let uid = id(name);
    users(passwd).find(|user| match uid {
        Some(uid) => user.uid == uid,
        None => user.name == name,
    })
}

/// The home of an id is looked up even where the user was given by ids alone. One that its entry
/// leaves empty stays empty.
fn home_of(uid: u32, passwd: &str) -> String {
    let entry = users(passwd).find(|user| user.uid == uid);
    entry.map_or("/", |user| user.home).to_owned()
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        Some(Group {
            name: fields.next()?,
            gid: id(fields.nth(1)?)?,
            members: fields.next().unwrap_or(""),
        })
    })
}

fn find_group(name: &str, group: &str) -> Result<u32, String> {
    if let Some(gid) = id(name) {
        return Ok(gid);
    }
    groups(group)
        .find(|entry| entry.name == name)
        .map(|entry| entry.gid)
        .ok_or_else(|| format!("unable to find group `{name}`: no matching entries in group file"))
}

fn groups_of(user: &str, group: &str) -> Vec<u32> {
    let mut gids: Vec<u32> = Vec::new();
    for entry in groups(group) {
        let is_member = entry.members.split(',').any(|member| member == user);
        if is_member && !gids.contains(&entry.gid) {
            gids.push(entry.gid);
        }
    }
    gids
}

fn id(text: &str) -> Option<u32> {
    if !is_number(text) {
        return None;
    }
    text.parse().ok().filter(|&id| id <= MAX_ID)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken\n\
        odd:x:notanumber:7::/odd:\n\
        app:x:1000:1001::/home/app:/bin/sh\n\
        app:x:2000:2001::/other:/bin/sh\n\
        bare:x:1500:1500\n";
    const GROUP: &str = "root:x:0:\n\
        wheel:x:10:root,app\n\
        app:x:1001:\n\
        docker:x:998:app\n\
        again:x:998:app\n";

    fn ids(user: &str) -> (u32, u32, Vec<u32>, String) {
        let found = resolve(user, PASSWD, GROUP).unwrap();
        (found.uid, found.gid, found.groups, found.home)
    }

    #[test]
    fn a_name_brings_its_groups_and_home() {
        let app = (1000, 1001, vec![1001, 10, 998], "/home/app".to_owned());
        assert_eq!(ids("app"), app);
        assert_eq!(ids("1000"), app);
        assert_eq!(ids(""), (0, 0, vec![0, 10], "/root".to_owned()));
    }

    #[test]
    fn an_explicit_group_replaces_the_others() {
        let home = "/home/app".to_owned();
        assert_eq!(ids("app:wheel"), (1000, 10, vec![10], home.clone()));
        assert_eq!(ids("1000:5"), (1000, 5, vec![5], home));
    }

    #[test]
    fn numbers_without_an_entry_are_taken_as_they_are() {
        assert_eq!(ids("77"), (77, 0, vec![0], "/".to_owned()));
        assert_eq!(ids("77:88"), (77, 88, vec![88], "/".to_owned()));
    }

    #[test]
    fn a_home_that_is_left_empty_stays_empty() {
        assert_eq!(ids("bare").3, "");
        let found = resolve("0", "root:x:0:0:root::/bin/sh\n", "").unwrap();
        assert_eq!(found.home, "");
    }

    #[test]
    fn a_root_without_files_has_root_and_numbers_only() {
        let root = resolve("", "", "").unwrap();
        assert_eq!((root.uid, root.gid, root.groups), (0, 0, vec![0]));
        assert!(resolve("root", "", "").is_err());
    }

    #[test]
    fn unknown_names_and_impossible_ids_are_refused() {
        let why = |user| resolve(user, PASSWD, GROUP).unwrap_err();
        assert_eq!(why("nobody"), "no matching entries in passwd file");
        assert_eq!(why("odd"), "no matching entries in passwd file");
        assert!(why("app:nogroup").contains("nogroup"));
        assert!(why("4294967295").contains("range"));
    }
}
