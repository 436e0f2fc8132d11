//! Port specifications of `EXPOSE`: `80`, `80/udp`, `8000-8010`, `ip:host:container`.

use std::net::IpAddr;

/// Returns the `port/protocol` entries of a specification, or what is wrong with it.
///
/// Host addresses and ports are checked and dropped: an image cannot map ports.
pub(super) fn exposed(spec: &str) -> Result<Vec<String>, String> {
    let (host, container) = spec.rsplit_once(':').unwrap_or(("", spec));
    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(format!("no port specified: `{spec}`"));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => return Err(format!("invalid proto: `{other}`")),
    };
    let range = range(ports).ok_or_else(|| format!("invalid containerPort: `{ports}`"))?;
    check_host(host, range)?;
    Ok((range.0..=range.1)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn check_host(host: &str, container: (u16, u16)) -> Result<(), String> {
    let (ip, ports) = host.rsplit_once(':').unwrap_or(("", host));
    let plain = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    if !plain.is_empty() && plain.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: `{ip}`"));
    }
    if ports.is_empty() {
        return Ok(());
    }
    let on_host = range(ports).ok_or_else(|| format!("invalid hostPort: `{ports}`"))?;
    let length = |(first, last): (u16, u16)| last - first;
    if length(container) != 0 && length(container) != length(on_host) {
        return Err(format!(
            "invalid ranges specified for container and host ports: `{host}`"
        ));
    }
    Ok(())
}

fn range(ports: &str) -> Option<(u16, u16)> {
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn number(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_become_entries() {
        for (spec, expected) in [
            ("80", &["80/tcp"][..]),
            ("80/", &["80/tcp"]),
            ("0", &["0/tcp"]),
            ("53/UDP", &["53/udp"]),
            ("7-9/sctp", &["7/sctp", "8/sctp", "9/sctp"]),
            ("8080:80", &["80/tcp"]),
            ("127.0.0.1:8080:80", &["80/tcp"]),
            ("[::1]::80", &["80/tcp"]),
            ("8000-8001:80", &["80/tcp"]),
        ] {
            assert_eq!(exposed(spec).unwrap(), expected, "{spec}");
        }
    }

    #[test]
    fn wrong_specifications_are_named() {
        for (spec, part) in [
            ("/tcp", "no port"),
            ("80/icmp", "`icmp`"),
            ("65536", "`65536`"),
            ("9-7", "`9-7`"),
            ("+1", "`+1`"),
            ("a", "`a`"),
            ("x:1:80", "`x`"),
            ("1-3:80-81", "ranges"),
            ("y:80", "hostPort"),
        ] {
            let message = exposed(spec).unwrap_err();
            assert!(message.contains(part), "{spec}: {message}");
        }
    }
}
