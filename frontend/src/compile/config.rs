//! Instructions that only change the image's config.

use serde_json::{Map, Value};

use crate::compile::ports::exposed;
use crate::compile::signals::is_signal;
use crate::compile::stage::StageBuild;
use crate::diagnostic::Diagnostic;
use crate::expand::Rules;
use crate::instruction::{CommandLine, Instruction, Step};
use crate::lines::Word;
use crate::quote::{duration, plain_list, quoted_list};

impl StageBuild<'_, '_> {
    /// Evaluates an instruction that makes no files.
    pub(super) fn configure(
        &mut self,
        step: &Step,
        instruction: &Instruction,
    ) -> Result<(), Diagnostic> {
        let text = match instruction {
            Instruction::Cmd(command) => self.cmd(command),
            Instruction::Entrypoint(command) => self.entrypoint(command),
            Instruction::Expose(words) => self.expose(words)?,
            Instruction::Healthcheck(check) => {
                self.state.image.config.healthcheck = Some(check.clone());
                health_text(check)
            }
            Instruction::Label(pairs) => {
                let mut text = String::from("LABEL");
                for (name, value) in self.expand_pairs(pairs)? {
                    text.extend([" ", &name, "=", &value]);
                    let labels = &mut self.state.image.config.labels;
                    labels.insert(name, Value::String(value));
                }
                text
            }
            Instruction::Maintainer(word) => {
                self.state.image.author = Some(word.text.clone());
                format!("MAINTAINER {}", word.text)
            }
            Instruction::Onbuild(trigger) => {
                let on_build = &mut self.state.image.config.on_build;
                on_build.push(trigger.clone());
                return Ok(());
            }
            Instruction::Shell(args) => {
                self.state.image.config.shell = Some(args.clone());
                format!("SHELL {}", plain_list(args))
            }
            Instruction::StopSignal(word) => self.stop_signal(word)?,
            Instruction::User(word) => {
                let user = self.expand(word)?;
                let text = format!("USER {user}");
                self.state.image.config.user = user;
                text
            }
            Instruction::Volume(words) => self.volume(words)?,
            _ => {
                let message = format!("kiln cannot build `{}`", step.code);
                return Err(Diagnostic::error(step.span, message));
            }
        };
        self.record(step, text, None);
        Ok(())
    }

    /// Returns the arguments of a command; the shell form is given to the stage's shell.
    pub(super) fn args(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(args) => args.clone(),
            CommandLine::Shell(text) => self.with_shell(text),
        }
    }

    pub(super) fn with_shell(&self, text: &str) -> Vec<String> {
        let shell = self.state.image.config.shell.clone();
        let shell = shell.filter(|shell| !shell.is_empty());
        let mut args = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        args.push(text.to_owned());
        args
    }

    fn cmd(&mut self, command: &CommandLine) -> String {
        let args = self.args(command);
        let text = format!("CMD {}", quoted_list(&args));
        self.has_cmd = true;
        self.state.image.config.cmd = Some(args).filter(|args| !args.is_empty());
        self.state.image.config.args_escaped = true;
        text
    }

    /// An `ENTRYPOINT` makes the command of the base meaningless, so it is left out.
    fn entrypoint(&mut self, command: &CommandLine) -> String {
        let args = self.args(command);
        let text = format!("ENTRYPOINT {}", quoted_list(&args));
        self.state.image.config.entrypoint = Some(args).filter(|args| !args.is_empty());
        if !self.has_cmd {
            self.state.image.config.cmd = None;
        }
        text
    }

    fn expose(&mut self, words: &[Word]) -> Result<String, Diagnostic> {
        let mut entries = Vec::new();
        for word in words {
            let at_word = |message: String| Diagnostic::error(word.span, message);
            let rules = Rules::words(self.build.file.escape);
            let lookup = |name: &str| self.state.env.get(name).map(str::to_owned);
            let specs = rules
                .split(&word.text, &lookup)
                .map_err(|error| at_word(format!("failed to process `{}`: {error}", word.text)))?;
            for spec in specs {
                entries.extend(exposed(&spec).map_err(at_word)?);
            }
        }
        let ports = &mut self.state.image.config.exposed_ports;
        for entry in &entries {
            ports.insert(entry.clone(), Value::Object(Map::new()));
        }
        Ok(format!("EXPOSE {}", plain_list(&entries)))
    }

    fn stop_signal(&mut self, word: &Word) -> Result<String, Diagnostic> {
        let signal = self.expand(word)?;
        if !is_signal(&signal) {
            let message = format!("invalid signal: `{signal}`");
            return Err(Diagnostic::error(word.span, message));
        }
        let text = format!("STOPSIGNAL {signal}");
        self.state.image.config.stop_signal = signal;
        Ok(text)
    }

    fn volume(&mut self, words: &[Word]) -> Result<String, Diagnostic> {
        let volumes = self.expand_all(words)?;
        if let Some(at) = volumes.iter().position(String::is_empty) {
            let message = "`VOLUME` specified can not be an empty string";
            return Err(Diagnostic::error(words[at].span, message));
        }
        let text = format!("VOLUME {}", plain_list(&volumes));
        for volume in volumes {
            let known = &mut self.state.image.config.volumes;
            known.insert(volume, Value::Object(Map::new()));
        }
        Ok(text)
    }
}

fn health_text(check: &kiln_graph::HealthCheck) -> String {
    let time = |nanoseconds: Option<i64>| duration(nanoseconds.unwrap_or(0));
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&check.test),
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval),
        check.retries.unwrap_or(0),
    )
}
