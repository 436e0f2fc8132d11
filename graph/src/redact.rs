//! Redacting: addresses without the passwords in them, for whatever is shown or kept as text.
//!
//! What is fetched keeps its address as it was written; names, records, histories and messages
//! get it from here.

/// What stands where a password was, as Docker has it.
const REDACTED: &str = "xxxxx";

/// Returns a text in which no address shows a password: `http://user:xxxxx@host`. Of a name alone
/// nothing stays, as some servers take tokens as names, but for that of SSH.
pub fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        // A password may have been written with what should be escaped in it.
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '"' | '<' | '>' | '`');
        let (host, behind) = after.split_at(after.find(ends).unwrap_or(after.len()));
        out.push_str(before);
        match host.rsplit_once('@') {
            Some((login, host)) => {
                out.push_str(&redacted_login(login, before.ends_with("ssh://")));
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(host),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

fn redacted_login(login: &str, is_ssh: bool) -> String {
    match login.split_once(':') {
        Some((user, _)) => format!("{user}:{REDACTED}"),
        None if is_ssh => login.to_owned(),
        None => REDACTED.to_owned(),
    }
}

/// Writes an address as it may be shown.
pub(crate) fn serialize_redacted<S: serde::Serializer>(
    text: &str,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&redacted(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_addresses_are_not_shown() {
        for (text, expected) in [
            ("ADD http://u:p@h/f /f", "ADD http://u:xxxxx@h/f /f"),
            ("http://u:p:q@r@h:80", "http://u:xxxxx@h:80"),
            ("http://u:p?#@h/x@y", "http://u:xxxxx@h/x@y"),
            ("https://token@h/r.git", "https://xxxxx@h/r.git"),
            (
                "ssh://git@h/r and ssh://g:p@h",
                "ssh://git@h/r and ssh://g:xxxxx@h",
            ),
            (
                r#"["http://u:p@[::1]/a", "b@c"]"#,
                r#"["http://u:xxxxx@[::1]/a", "b@c"]"#,
            ),
            (
                "git@github.com:a/b http://h/ c:d@e",
                "git@github.com:a/b http://h/ c:d@e",
            ),
            ("://", "://"),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }
}
