//! `CacheDefeatingCopy`: the whole context is copied before dependencies are installed.
//!
//! Any change to any file then runs the installation again. Told only where the files that the
//! installation needs have usual names, and where nothing shows that the order is meant.

use crate::Diagnostic;
use crate::instruction::{CopyFiles, Instruction, Step};
use crate::lint::own::script::{Script, mount_targets};
use crate::lint::rules::CACHE_DEFEATING_COPY;
use crate::lint::{Lint, Phase};

/// An installation of what some files list.
struct Install {
    programs: &'static [&'static str],
    /// The words that it begins with.
    words: &'static [&'static str],
    /// A further word names a package, so no file lists what is installed.
    is_bare: bool,
    shown: &'static str,
    files: &'static str,
}

const fn install(
    programs: &'static [&'static str],
    words: &'static [&'static str],
    shown: &'static str,
    files: &'static str,
) -> Install {
    Install {
        programs,
        words,
        is_bare: false,
        shown,
        files,
    }
}

const fn bare(
    programs: &'static [&'static str],
    words: &'static [&'static str],
    shown: &'static str,
    files: &'static str,
) -> Install {
    Install {
        is_bare: true,
        ..install(programs, words, shown, files)
    }
}

const NPM: &str = "package.json package-lock.json";
const YARN: &str = "package.json yarn.lock";

const INSTALLS: [Install; 14] = [
    bare(&["npm"], &["ci"], "npm ci", NPM),
    bare(&["npm"], &["install"], "npm install", NPM),
    bare(&["npm"], &["i"], "npm install", NPM),
    bare(&["yarn"], &["install"], "yarn install", YARN),
    bare(&["yarn"], &[], "yarn install", YARN),
    bare(
        &["pnpm"],
        &["install"],
        "pnpm install",
        "package.json pnpm-lock.yaml",
    ),
    install(
        &["pip", "pip3"],
        &["install", "-r"],
        "pip install -r",
        "requirements.txt",
    ),
    install(
        &["go"],
        &["mod", "download"],
        "go mod download",
        "go.mod go.sum",
    ),
    install(
        &["cargo"],
        &["fetch"],
        "cargo fetch",
        "Cargo.toml Cargo.lock",
    ),
    bare(
        &["bundle"],
        &["install"],
        "bundle install",
        "Gemfile Gemfile.lock",
    ),
    bare(&["bundle"], &[], "bundle install", "Gemfile Gemfile.lock"),
    bare(
        &["composer"],
        &["install"],
        "composer install",
        "composer.json composer.lock",
    ),
    bare(
        &["poetry"],
        &["install"],
        "poetry install",
        "pyproject.toml poetry.lock",
    ),
    bare(&["dotnet"], &["restore"], "dotnet restore", "*.csproj"),
];

/// Looks at the instructions of a stage.
pub(super) fn check(lint: &mut Lint, steps: &[Step]) {
    let mut copy: Option<(&Step, &CopyFiles)> = None;
    let mut installed: Vec<&str> = Vec::new();
    for step in steps {
        match &step.instruction {
            Instruction::Copy(files) if copy.is_none() && copies_everything(files) => {
                copy = Some((step, files));
            }
            Instruction::Run(run) => {
                let script = Script::of(run);
                let has_cache = !mount_targets(&step.code).is_empty();
                let found = INSTALLS.iter().filter(|install| install.is_in(&script));
                for install in found {
                    let is_first = !installed.contains(&install.files);
                    installed.push(install.files);
                    if let Some((step, files)) = copy
                        && is_first
                        && !has_cache
                    {
                        report(lint, step, files, install);
                    }
                }
            }
            _ => {}
        }
    }
}

fn report(lint: &mut Lint, step: &Step, files: &CopyFiles, install: &Install) {
    let (name, shown) = (files.kind.name(), install.shown);
    let message = format!(
        "the whole context is copied before `{shown}`, so every change to it runs `{shown}` again"
    );
    let help = format!(
        "put `{name} {} ./` and the RUN of `{shown}` before it",
        install.files
    );
    let diagnostic = Diagnostic::warning(step.span, message).with_help(help);
    lint.report(Phase::Own, &CACHE_DEFEATING_COPY, diagnostic);
}

fn copies_everything(files: &CopyFiles) -> bool {
    let is_all = |text: &str| matches!(text, "." | "./" | "/" | "*" | "./*");
    files.from.is_none()
        && files.excludes.is_empty()
        && files.sources.iter().any(|word| is_all(&word.text))
}

impl Install {
    fn is_in(&self, script: &Script) -> bool {
        script.calls(self.programs).any(|words| self.is_call(words))
    }

    fn is_call(&self, words: &[String]) -> bool {
        let is_global = |word: &String| matches!(word.as_str(), "-g" | "--global");
        if words.iter().any(is_global) {
            return false;
        }
        if !self.is_bare {
            return self.words.iter().all(|wanted| {
                let is_same = |word: &String| {
                    word == wanted || (*wanted == "-r" && word.starts_with("--requirement"))
                };
                words.iter().any(is_same)
            });
        }
        let plain: Vec<&str> = words
            .iter()
            .map(String::as_str)
            .filter(|word| !word.starts_with(['-', '>', '<']) && !word.ends_with('>'))
            .collect();
        plain == self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installations_are_told_from_other_commands() {
        let found = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let mut known = INSTALLS.iter();
            let known = known.find(|i| i.programs.contains(&&*words[0]) && i.is_call(&words[1..]));
            known.map(|install| install.shown)
        };
        for (line, expected) in [
            ("npm ci --omit=dev", Some("npm ci")),
            ("npm i", Some("npm install")),
            ("npm install -g yarn", None),
            ("npm install left-pad", None),
            ("npm run build", None),
            ("yarn", Some("yarn install")),
            ("yarn build", None),
            ("pip install -q -r requirements.txt", Some("pip install -r")),
            ("pip install .", None),
            ("go mod download", Some("go mod download")),
            ("go build ./...", None),
        ] {
            assert_eq!(found(line), expected, "{line}");
        }
    }
}
