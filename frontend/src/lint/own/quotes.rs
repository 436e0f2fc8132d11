//! `TypographicQuotes`: `CMD [“a”]` is no JSON, so it is given to a shell as it stands.

use crate::Diagnostic;
use crate::instruction::{CommandLine, Instruction, Step};
use crate::lint::rules::TYPOGRAPHIC_QUOTES;
use crate::lint::{Lint, Phase};

const DOUBLE: [char; 7] = ['“', '”', '„', '‟', '«', '»', '＂'];
const SINGLE: [char; 4] = ['‘', '’', '‚', '‛'];

pub(super) fn check(lint: &mut Lint, step: &Step) {
    let Some(text) = shell_text(step) else {
        return;
    };
    let text = text.trim();
    let is_list = text.starts_with('[') && text.ends_with(']');
    let first = text.trim_start_matches('[').trim_start().chars().next();
    if !is_list || !first.is_some_and(is_typographic) {
        return;
    }
    let message = "typographic quotes make this no JSON form: it is taken for the shell form";
    let help = format!("write `{}`", straight(text));
    let diagnostic = Diagnostic::warning(step.span, message).with_help(help);
    lint.report(Phase::Own, &TYPOGRAPHIC_QUOTES, diagnostic);
}

fn is_typographic(c: char) -> bool {
    DOUBLE.contains(&c) || SINGLE.contains(&c)
}

fn straight(text: &str) -> String {
    let straight = |c: char| if is_typographic(c) { '"' } else { c };
    text.chars().map(straight).collect()
}

/// Returns the text of an instruction that has a JSON form and does not use it.
fn shell_text(step: &Step) -> Option<String> {
    match &step.instruction {
        Instruction::Cmd(CommandLine::Shell(text))
        | Instruction::Entrypoint(CommandLine::Shell(text)) => Some(text.clone()),
        Instruction::Run(run) => match &run.command {
            CommandLine::Shell(text) => Some(text.clone()),
            CommandLine::Exec(_) => None,
        },
        Instruction::Copy(_) | Instruction::Volume(_) => {
            let words = step.code.split_whitespace().skip(1);
            let words: Vec<&str> = words.skip_while(|word| word.starts_with("--")).collect();
            Some(words.join(" "))
        }
        Instruction::Healthcheck(check) => match &check.test[..] {
            [kind, text] if kind == "CMD-SHELL" => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}
