//! The variables that a stage sees, in order.

use kiln_graph::Platform;

use crate::options::Options;

/// Names and values; a name that is set again moves to the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Env(Vec<(String, String)>);

impl Env {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(key, _)| key != name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn to_vec(&self) -> Vec<(String, String)> {
        self.0.clone()
    }
}

/// Returns the variables that exist before the first `ARG`.
pub(crate) fn built_in(options: &Options, target_stage: Option<&str>) -> Env {
    let mut env = Env::default();
    for (prefix, platform) in [
        ("BUILD", &options.build_platform),
        ("TARGET", &options.target_platform),
    ] {
        for (suffix, value) in platform_values(platform) {
            env.set(&format!("{prefix}{suffix}"), &value);
        }
    }
    env.set("TARGETSTAGE", target_stage.unwrap_or("default"));
    for (name, _) in env.to_vec() {
        if let Some(value) = options.build_arg(&name) {
            env.set(&name, value);
        }
    }
    env
}

fn platform_values(platform: &Platform) -> [(&'static str, String); 5] {
    [
        ("PLATFORM", platform.to_string()),
        ("OS", platform.os.clone()),
        // Only Windows has versions of its platform.
        ("OSVERSION", String::new()),
        ("ARCH", platform.architecture.clone()),
        ("VARIANT", platform.variant.clone().unwrap_or_default()),
    ]
}

/// Returns the proxy settings among the build arguments, each in both cases.
pub(crate) fn proxies(options: &Options) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "FTP_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
    ] {
        let mut args = options.build_args.iter().rev();
        let value = args.find(|(arg, _)| arg.eq_ignore_ascii_case(name));
        if let Some((_, value)) = value.filter(|(_, value)| !value.is_empty()) {
            out.push((name.to_owned(), value.clone()));
            out.push((name.to_ascii_lowercase(), value.clone()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[(&str, &str)]) -> Options {
        let mut options = Options::for_platform(Platform::linux("arm"));
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        options.build_args = args.iter().map(owned).collect();
        options
    }

    #[test]
    fn platform_variables_can_be_overridden() {
        let env = built_in(&options(&[("TARGETARCH", "x")]), None);
        assert_eq!(env.get("TARGETPLATFORM"), Some("linux/arm/v7"));
        assert_eq!(env.get("TARGETARCH"), Some("x"));
        assert_eq!(env.get("TARGETVARIANT"), Some("v7"));
        assert_eq!(env.get("BUILDOSVERSION"), Some(""));
        assert_eq!(env.get("TARGETSTAGE"), Some("default"));
    }

    #[test]
    fn proxies_come_in_both_cases() {
        let found = proxies(&options(&[
            ("no_proxy", "a"),
            ("HTTP_PROXY", ""),
            ("X", "y"),
        ]));
        let expected = [("NO_PROXY", "a"), ("no_proxy", "a")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn setting_again_moves_to_the_end() {
        let mut env = Env::default();
        env.set("A", "1");
        env.set("B", "2");
        env.set("A", "3");
        let expected = [("B", "2"), ("A", "3")];
        assert_eq!(
            env.to_vec(),
            expected.map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
    }
}
