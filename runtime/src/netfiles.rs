//! Content of `/etc/hosts` and `/etc/resolv.conf` in a step. Pure; the caller reads and mounts.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::step::Network;

/// The resolver that systemd runs for programs that do not use its own interface.
const SYSTEMD_STUB: &str = "127.0.0.53";

/// Returns `/etc/hosts` with the step's own name and further names with their addresses.
pub(crate) fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text =
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        let _infallible = writeln!(text, "{address}\t{name}");
    }
    text
}

/// Returns whether the host's file names systemd's resolver only, so that the file behind that
/// is the one to use.
pub(crate) fn names_systemd_only(host: &str) -> bool {
    let mut servers = host.lines().filter_map(server).peekable();
    servers.peek().is_some() && servers.all(|server| server == SYSTEMD_STUB)
}

/// Returns `/etc/resolv.conf` for a step. Servers on the host's loopback device are of use only
/// to steps that share it.
pub(crate) fn resolv_conf(host: &str, network: Network) -> String {
    let is_reachable =
        |line: &&str| network == Network::Host || !server(line).is_some_and(is_local);
    host.lines()
        .filter(is_reachable)
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next())?
}

fn is_local(server: &str) -> bool {
    // An IPv6 address may carry a zone.
    let address = server.split('%').next().unwrap_or(server);
    address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# by hand\nsearch example.com\nnameserver 127.0.0.1\nnameserver ::1\n\
        nameserver 10.0.0.2\noptions edns0\n";

    #[test]
    fn hosts_names_the_step_and_the_extra_hosts() {
        let text = hosts("box", &[("db".to_owned(), "10.0.0.9".to_owned())]);
        assert!(text.starts_with("127.0.0.1\tlocalhost box\n"));
        assert!(text.ends_with("10.0.0.9\tdb\n"));
    }

    #[test]
    fn local_servers_stay_only_with_the_hosts_network() {
        assert_eq!(resolv_conf(HOST, Network::Host), HOST);
        let without = resolv_conf(HOST, Network::None);
        assert!(!without.contains("127.0.0.1") && !without.contains("::1"));
        assert!(without.contains("nameserver 10.0.0.2\noptions edns0\n"));
    }

    #[test]
    fn only_a_lone_systemd_resolver_is_replaced() {
        assert!(names_systemd_only("nameserver 127.0.0.53\nsearch x\n"));
        assert!(!names_systemd_only(
            "nameserver 127.0.0.53\nnameserver 1.1.1.1\n"
        ));
        assert!(!names_systemd_only("search x\n"));
    }
}
