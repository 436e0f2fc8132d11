//! `WWW-Authenticate`: what a registry wants to see (RFC 9110, section 11.6.1).
//!
//! Parses; decides nothing but which of several challenges to answer.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// How a registry wants to be convinced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from a token server.
    Bearer(Bearer),
}

/// Where a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// URL of the token server.
    pub(crate) realm: String,
    /// The registry's name there.
    pub(crate) service: Option<String>,
    /// What the refused request needs.
    pub(crate) scope: Option<String>,
}

impl Challenge {
    /// Returns the challenge to answer: a token rather than a password.
    pub(crate) fn pick(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        let challenges = parse(&texts.join(", "));
        let of = |scheme: &str| {
            let fits = |c: &&RawChallenge| c.scheme.eq_ignore_ascii_case(scheme);
            challenges.iter().find(fits)
        };
        let bearer = of("bearer").and_then(|raw| {
            Some(Self::Bearer(Bearer {
                realm: raw.param("realm")?,
                service: raw.param("service"),
                scope: raw.param("scope"),
            }))
        });
        bearer.or_else(|| of("basic").map(|_| Self::Basic))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct RawChallenge {
    scheme: String,
    params: Vec<(String, String)>,
}

impl RawChallenge {
    fn param(&self, name: &str) -> Option<String> {
        let mut params = self.params.iter();
        let (_, value) = params.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value.clone()).filter(|value| !value.is_empty())
    }
}

/// Parses a list of challenges. What is not one is skipped up to the next comma.
fn parse(text: &str) -> Vec<RawChallenge> {
    let mut challenges: Vec<RawChallenge> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return challenges;
        }
        let (word, after) = token(rest);
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix('=').filter(|_| !word.is_empty()) {
            let (value, after) = param_value(value.trim_start());
            if let Some(challenge) = challenges.last_mut() {
                challenge.params.push((word.to_owned(), value));
            }
            rest = after;
        } else if word.is_empty() {
            rest = rest.split_once(',').map_or("", |(_, after)| after);
        } else {
            challenges.push(RawChallenge {
                scheme: word.to_owned(),
                params: Vec::new(),
            });
            rest = after;
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn param_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some registries leave the quotes out, even around URLs.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn pick(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        Challenge::pick(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }))
    }

    #[test]
    fn challenges_as_registries_send_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull""#;
        let hub_means = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:library/a:pull"),
        );
        assert_eq!(pick(&[hub]), hub_means);
        assert_eq!(pick(&[r#"Basic realm="x""#, hub]), hub_means);
        for (text, means) in [
            (r#"Basic realm="Registry""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            (
                r#"Basic realm="a, b", Bearer realm="r""#,
                bearer("r", None, None),
            ),
            (
                r#"bearer Realm = "r" , SERVICE=s"#,
                bearer("r", Some("s"), None),
            ),
            (
                r#"Bearer realm=https://h/t,service="s""#,
                bearer("https://h/t", Some("s"), None),
            ),
            (
                r#"Bearer realm="a\"b",scope="""#,
                bearer("a\"b", None, None),
            ),
            (
                r#"Bearer realm="r",scope="repository:a:pull,push repository:b:pull""#,
                bearer("r", None, Some("repository:a:pull,push repository:b:pull")),
            ),
            (r#"Bearer realm="unclosed"#, bearer("unclosed", None, None)),
            (r#"Negotiate, Bearer realm="r""#, bearer("r", None, None)),
            (r#"Bearer service="s""#, None),
            (r#"Digest realm="x""#, None),
            (r#"="x", @@, Bearer realm="r""#, bearer("r", None, None)),
            ("", None),
            (",,,", None),
        ] {
            assert_eq!(pick(&[text]), means, "{text}");
        }
    }
}
