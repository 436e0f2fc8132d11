//! `--allow`: what steps may ask for.

use kiln_frontend::Entitlements;

use crate::report::Failure;

/// Returns what is allowed, or says what kiln does not know.
pub(super) fn allowed(written: &[String]) -> Result<Entitlements, Failure> {
    let mut allowed = Entitlements::default();
    for name in written {
        match name.trim() {
            "network.host" => allowed.network_host = true,
            "security.insecure" => allowed.security_insecure = true,
            "device" => {
                let message = "--allow device: kiln does not give devices to RUN steps";
                return Err(Failure::usage(message.to_owned()));
            }
            other => {
                let message =
                    format!("--allow {other}: expected network.host or security.insecure");
                return Err(Failure::usage(message));
            }
        }
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_entitlements_are_allowed() {
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            allowed(&names).ok()
        };
        let both = Entitlements {
            network_host: true,
            security_insecure: true,
        };
        assert_eq!(of(&[]), Some(Entitlements::default()));
        assert_eq!(of(&["security.insecure", "network.host"]), Some(both));
        assert_eq!(of(&["device"]), None);
        assert_eq!(of(&["network"]), None);
    }
}
