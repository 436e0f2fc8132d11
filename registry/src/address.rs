//! Hosts and URLs: which are on this machine, which are where, and where an answer may send us.
//!
//! Judges by what is written, not by what a name resolves to.

use std::net::IpAddr;

use reqwest::Url;

/// The host that serves what is called `docker.io`.
const HUB: &str = "docker.io";
const HUB_ENDPOINT: &str = "registry-1.docker.io";

/// Where in the network a host is, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// This machine.
    Loopback,
    /// The local link, where clouds keep their metadata services.
    LinkLocal,
    /// Anywhere else.
    Elsewhere,
}

/// Returns the host to connect to for the host of a reference.
pub(crate) fn endpoint(host: &str) -> &str {
    if host == HUB { HUB_ENDPOINT } else { host }
}

/// Returns the place of an authority: a host with an optional port.
pub(crate) fn place(authority: &str) -> Place {
    let name = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    if name.eq_ignore_ascii_case("localhost") {
        return Place::Loopback;
    }
    match name.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) if address.is_loopback() || address.is_unspecified() => Place::Loopback,
        Ok(IpAddr::V4(address)) if address.is_link_local() => Place::LinkLocal,
        Ok(IpAddr::V6(address)) if address.is_unicast_link_local() => Place::LinkLocal,
        _ => Place::Elsewhere,
    }
}

/// Returns the authority of a URL: host, and port unless it is the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Returns true if both URLs have the same scheme, host and port.
pub(crate) fn is_same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// Resolves a `Location` against the URL that answered with it, or says why it is refused.
///
/// A registry may send us to another host, but not to this machine or the local link unless it is
/// there itself, and not from TLS to plain HTTP unless `may_be_plain` says so of the host.
pub(crate) fn follow(
    from: &Url,
    location: &str,
    may_be_plain: impl Fn(&str) -> bool,
) -> Result<Url, String> {
    let wrong = |_| "its `Location` is not a URL".to_owned();
    let mut target = from.join(location).map_err(wrong)?;
    // A proxy that ends TLS before a registry that does not know of it.
    if from.scheme() == "https" && target.scheme() == "http" && from.host() == target.host() {
        let is_default = target.port().is_none() || target.port() == from.port();
        if is_default && target.set_scheme("https").is_err() {
            return Err("its `Location` has no host".to_owned());
        }
    }
    if !target.username().is_empty() || target.password().is_some() {
        return Err("its `Location` holds a user name".to_owned());
    }
    check(from, &target, may_be_plain)?;
    Ok(target)
}

/// Says why a registry at `from` may not make us send a request to `target`.
pub(crate) fn check(
    from: &Url,
    target: &Url,
    may_be_plain: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let host = authority(target);
    match target.scheme() {
        "https" => {}
        "http" if from.scheme() == "http" || may_be_plain(&host) => {}
        "http" => return Err(format!("it leads from TLS to plain HTTP at `{host}`")),
        scheme => return Err(format!("it leads to scheme `{scheme}`")),
    }
    let (here, there) = (place(&authority(from)), place(&host));
    let is_inside = there != Place::Elsewhere && there != here && here != Place::Loopback;
    if is_inside {
        return Err(format!("it leads to `{host}`, which is no public address"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (host, expected) in [
            ("localhost:5000", Place::Loopback),
            ("127.9.9.9", Place::Loopback),
            ("[::1]:5000", Place::Loopback),
            ("[::ffff:127.0.0.1]", Place::Loopback),
            ("0.0.0.0:80", Place::Loopback),
            ("169.254.169.254", Place::LinkLocal),
            ("[fe80::1]", Place::LinkLocal),
            ("127.0.0.1.example.com", Place::Elsewhere),
            ("localhost.example.com", Place::Elsewhere),
            ("10.0.0.1:5000", Place::Elsewhere),
            ("ghcr.io", Place::Elsewhere),
        ] {
            assert_eq!(place(host), expected, "{host}");
        }
    }

    #[test]
    fn locations_are_followed_or_refused() {
        let plain = |host: &str| host == "lan:5000";
        for (from, location, expected) in [
            ("https://r.io/v2/x", "/v2/y", Ok("https://r.io/v2/y")),
            (
                "https://r.io/v2/x",
                "https://s3.io/b?k",
                Ok("https://s3.io/b?k"),
            ),
            ("https://r.io/v2/x", "http://r.io/y", Ok("https://r.io/y")),
            ("https://r.io/v2/x", "http://s3.io/b", Err("plain HTTP")),
            (
                "https://r.io/v2/x",
                "http://lan:5000/b",
                Ok("http://lan:5000/b"),
            ),
            (
                "http://lan:5000/v2/x",
                "http://s3.io/b",
                Ok("http://s3.io/b"),
            ),
            (
                "https://r.io/v2/x",
                "file:///etc/passwd",
                Err("scheme `file`"),
            ),
            (
                "https://r.io/v2/x",
                "https://169.254.169.254/a",
                Err("no public"),
            ),
            (
                "http://lan:5000/v2/x",
                "http://127.0.0.1/a",
                Err("no public"),
            ),
            (
                "http://lan:5000/v2/x",
                "http://[::ffff:169.254.1.1]/a",
                Err("no public"),
            ),
            (
                "http://127.0.0.1:1/v2/x",
                "http://127.0.0.1:2/a",
                Ok("http://127.0.0.1:2/a"),
            ),
            ("https://r.io/v2/x", "https://u:p@s3.io/", Err("user name")),
            ("https://r.io/v2/x", "https://", Err("not a URL")),
        ] {
            let got = follow(&from.parse().unwrap(), location, plain);
            match (got, expected) {
                (Ok(url), Ok(expected)) => assert_eq!(url.as_str(), expected, "{location}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{location}: {why}"),
                (got, _) => panic!("{location}: {got:?}"),
            }
        }
    }

    #[test]
    fn docker_hub_is_served_elsewhere() {
        assert_eq!(endpoint("docker.io"), "registry-1.docker.io");
        assert_eq!(endpoint("ghcr.io"), "ghcr.io");
    }
}
