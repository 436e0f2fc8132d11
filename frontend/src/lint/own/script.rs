//! A shell script, read well enough to see which programs it runs with which words.
//!
//! Not a shell: variables, functions and nested quotes stay as they are. What is not understood
//! is no finding.

use crate::instruction::{CommandLine, Run};

/// The commands of a `RUN`, each as words.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) text: String,
    commands: Vec<Vec<String>>,
}

impl Script {
    /// Reads the commands of a `RUN`: its shell form, its heredocs, or the shell's argument in its
    /// exec form.
    pub(super) fn of(run: &Run) -> Self {
        let mut text = match &run.command {
            CommandLine::Shell(text) => text.clone(),
            CommandLine::Exec(args) => match &args[..] {
                [shell, flag, script, ..] if is_shell(shell) && flag.ends_with('c') => {
                    script.clone()
                }
                args => args.join(" "),
            },
        };
        for heredoc in &run.heredocs {
            text.push('\n');
            text.push_str(&heredoc.body);
        }
        let commands = commands(&text);
        Self { text, commands }
    }

    /// Returns the words behind the names of one of `programs`, for each command that runs one.
    pub(super) fn calls<'a>(
        &'a self,
        programs: &'a [&'a str],
    ) -> impl Iterator<Item = &'a [String]> {
        self.commands.iter().filter_map(|words| {
            let words = program(words);
            let name = words.first()?.rsplit('/').next()?;
            programs.contains(&name).then(|| &words[1..])
        })
    }

    /// Returns true if files below a folder are removed.
    pub(super) fn removes(&self, dir: &str) -> bool {
        let mut removals = self.calls(&["rm", "find"]);
        removals.any(|words| words.iter().any(|word| word.contains(dir)))
    }
}

/// Returns where the mounts of a `RUN` are, as written.
pub(super) fn mount_targets(code: &str) -> Vec<String> {
    let flags = code.split_whitespace().skip(1);
    let flags = flags.take_while(|word| word.starts_with("--"));
    let mounts = flags.filter_map(|flag| flag.strip_prefix("--mount="));
    let target = |mount: &str| {
        let options = mount.split(',').filter_map(|option| option.split_once('='));
        let is_target = |key: &str| matches!(key, "target" | "dst" | "destination");
        let mut targets = options.filter(|(key, _)| is_target(key.trim_matches('"')));
        targets
            .next()
            .map(|(_, value)| value.trim_matches('"').to_owned())
    };
    mounts.filter_map(target).collect()
}

fn is_shell(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    matches!(name, "sh" | "bash" | "ash" | "dash" | "zsh")
}

/// Leaves out what stands before a program: variables, `sudo`, words of the shell.
fn program(words: &[String]) -> &[String] {
    let is_before = |word: &str| {
        let is_setting = word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        let is_word = matches!(
            word,
            "sudo"
                | "exec"
                | "command"
                | "env"
                | "time"
                | "then"
                | "do"
                | "else"
                | "if"
                | "!"
                | "{"
        );
        is_setting || is_word
    };
    let from = words.iter().position(|word| !is_before(word));
    &words[from.unwrap_or(words.len())..]
}

/// Splits a script at `;`, `&`, `|`, parentheses and line ends that are not quoted.
fn commands(text: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), String::new());
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '\\') => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => word.push(escaped),
            },
            (None, '#') if word.is_empty() => while chars.next_if(|&c| c != '\n').is_some() {},
            (None, ';' | '&' | '|' | '\n' | '(' | ')') => {
                end_word(&mut word, &mut words);
                if !words.is_empty() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            (None, c) if c.is_whitespace() => end_word(&mut word, &mut words),
            (None, c) => word.push(c),
        }
    }
    end_word(&mut word, &mut words);
    if !words.is_empty() {
        commands.push(words);
    }
    commands
}

fn end_word(word: &mut String, words: &mut Vec<String>) {
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Script {
        Script {
            text: text.to_owned(),
            commands: commands(text),
        }
    }

    #[test]
    fn programs_are_found_in_scripts() {
        for (text, expected) in [
            ("apt-get update", &["update"][..]),
            (
                "set -e; A=b sudo /usr/bin/apt-get -y update",
                &["-y", "update"],
            ),
            ("if true; then apt-get x; fi", &["x"]),
            ("(cd /x && apt-get 'a b')", &["a b"]),
            ("a \\\n&& apt-get x # apt-get y", &["x"]),
        ] {
            let script = script(text);
            let calls: Vec<_> = script.calls(&["apt-get"]).collect();
            assert_eq!(calls, [expected], "{text}");
        }
        for text in [
            "echo apt-get update",
            "echo 'x; apt-get update'",
            "# apt-get",
        ] {
            assert_eq!(script(text).calls(&["apt-get"]).count(), 0, "{text}");
        }
    }

    #[test]
    fn targets_of_mounts_are_read_from_the_text() {
        let code =
            "RUN --mount=type=cache,dst=/a --network=none --mount=target=/b,ro x --mount=dst=/c";
        assert_eq!(mount_targets(code), ["/a", "/b"]);
    }

    #[test]
    fn removals_are_seen() {
        assert!(script("x && rm -rf /var/lib/apt/lists/*").removes("/var/lib/apt/lists"));
        assert!(!script("echo rm /var/lib/apt/lists").removes("/var/lib/apt/lists"));
    }
}
