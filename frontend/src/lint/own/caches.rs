//! `PackageCacheKept`: what a package manager keeps for its next run stays in the layer.
//!
//! npm and the like are left out: few files remove their caches, and a remark on nearly every
//! file would be noise.

use crate::Diagnostic;
use crate::env::Env;
use crate::instruction::{Run, Step};
use crate::lint::own::script::{Script, mount_targets};
use crate::lint::rules::PACKAGE_CACHE_KEPT;
use crate::lint::{Lint, Phase};

/// A package manager, and how it is kept from leaving its cache.
struct Manager {
    programs: &'static [&'static str],
    /// Any of these words fills the cache.
    fills: &'static [&'static str],
    /// Any of these words keeps the cache empty, or empties it.
    clean: &'static [&'static str],
    /// Where the cache is: removing or mounting one of these is fine, too.
    dirs: &'static [&'static str],
    /// What stays.
    what: &'static str,
    help: &'static str,
}

const MANAGERS: [Manager; 5] = [
    Manager {
        programs: &["apt-get", "apt"],
        fills: &["update"],
        clean: &[],
        dirs: &["/var/lib/apt"],
        what: "`apt-get update` leaves its package lists",
        help: "add `&& rm -rf /var/lib/apt/lists/*` to the same RUN, or mount a cache: \
               `RUN --mount=type=cache,target=/var/lib/apt,sharing=locked …`",
    },
    Manager {
        programs: &["apk"],
        fills: &["add", "update", "upgrade"],
        clean: &["--no-cache"],
        dirs: &["/var/cache/apk", "/etc/apk/cache"],
        what: "`apk` leaves its package index",
        help: "write `apk add --no-cache …`",
    },
    Manager {
        programs: &["pip", "pip3"],
        fills: &["install"],
        clean: &["--no-cache-dir", "purge"],
        dirs: &["/.cache", "/cache/pip"],
        what: "`pip install` leaves its downloads",
        help: "write `pip install --no-cache-dir …`, or mount a cache: \
               `RUN --mount=type=cache,target=/root/.cache/pip …`",
    },
    Manager {
        programs: &["dnf", "yum", "microdnf"],
        fills: &[
            "install",
            "update",
            "upgrade",
            "groupinstall",
            "reinstall",
            "makecache",
        ],
        clean: &["clean"],
        dirs: &[
            "/var/cache/dnf",
            "/var/cache/yum",
            "/var/cache/libdnf",
            "/var/cache",
        ],
        what: "`dnf` or `yum` leaves metadata and packages",
        help: "add `&& dnf clean all` to the same RUN, or mount a cache: \
               `RUN --mount=type=cache,target=/var/cache/dnf,sharing=locked …`",
    },
    Manager {
        programs: &["zypper"],
        fills: &["install", "in", "update", "up", "refresh", "ref"],
        clean: &["clean", "cc"],
        dirs: &["/var/cache/zypp"],
        what: "`zypper` leaves metadata and packages",
        help: "add `&& zypper clean --all` to the same RUN",
    },
];

pub(super) fn check(lint: &mut Lint, (step, run): (&Step, &Run), env: &Env) {
    let script = Script::of(run);
    let mounted = mount_targets(&step.code);
    for manager in &MANAGERS {
        if manager.keeps_its_cache(&script, &mounted, env) {
            let message = format!("{} in the layer", manager.what);
            let diagnostic = Diagnostic::warning(step.span, message).with_help(manager.help);
            lint.report(Phase::Own, &PACKAGE_CACHE_KEPT, diagnostic);
        }
    }
}

impl Manager {
    fn keeps_its_cache(&self, script: &Script, mounted: &[String], env: &Env) -> bool {
        let calls: Vec<Vec<String>> = self.calls(script);
        let has = |words: &[String], known: &[&str]| {
            words.iter().any(|word| known.contains(&word.as_str()))
        };
        let fills = calls
            .iter()
            .any(|words| has(words, self.fills) && !has(words, self.clean));
        let cleans = calls
            .iter()
            .any(|words| has(words, self.clean) && !has(words, self.fills));
        let is_elsewhere =
            |dir: &&str| script.removes(dir) || mounted.iter().any(|target| covers(target, dir));
        let is_off = self.programs.contains(&"pip")
            && (env.get("PIP_NO_CACHE_DIR").is_some() || script.text.contains("PIP_NO_CACHE_DIR"));
        fills && !cleans && !is_off && !self.dirs.iter().any(is_elsewhere)
    }

    /// Returns the words of each call; `python -m pip` is one of pip.
    fn calls(&self, script: &Script) -> Vec<Vec<String>> {
        let direct = script.calls(self.programs).map(<[String]>::to_vec);
        let modules = script.calls(&["python", "python3"]);
        let modules = modules.filter(|words| {
            words.len() > 2 && words[0] == "-m" && self.programs.contains(&words[1].as_str())
        });
        direct
            .chain(modules.map(|words| words[2..].to_vec()))
            .collect()
    }
}

/// A mount on a folder of the cache, on one above it, or on a part of it.
fn covers(target: &str, dir: &str) -> bool {
    target.contains(dir) || dir.starts_with(&format!("{}/", target.trim_end_matches('/')))
}
