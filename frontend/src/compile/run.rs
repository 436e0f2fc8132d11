//! `RUN`: the process, what it sees of variables, and scripts from heredocs.

use kiln_graph::{Exec, InlineFile, Op};

use crate::compile::naming::summary;
use crate::compile::stage::StageBuild;
use crate::diagnostic::Diagnostic;
use crate::heredoc;
use crate::instruction::{CommandLine, Run, Step};

/// Where a script from a heredoc is shown to the process that runs it.
const SCRIPT_DIR: &str = "/dev/pipes";

/// What a `RUN` comes to.
struct Process {
    args: Vec<String>,
    files: Vec<InlineFile>,
    /// What the step's name says of a heredoc.
    note: String,
}

impl StageBuild<'_, '_> {
    /// `number` is the place of the step in its stage.
    pub(super) fn run(&mut self, number: usize, step: &Step, run: &Run) -> Result<(), Diagnostic> {
        let process = self.process(run)?;
        let mut inputs = vec![self.state.root];
        let mounts = self.mounts(number, step, run, &mut inputs)?;
        let code = step.code.clone() + &process.note;
        let name = self.naming.of_command(&code, &self.state.env);
        let exec = Exec {
            args: process.args.clone(),
            env: self.state.env.to_vec(),
            unkeyed_env: self.undeclared_proxies(),
            cwd: self.dir(),
            user: self.state.image.config.user.clone(),
            network: run.network.unwrap_or(self.build.options.network),
            files: process.files,
            mounts,
            security: run.security.unwrap_or_default(),
        };
        let meta = self.meta(step, name);
        let layer = self.add_layer(Op::Exec(exec), inputs, meta);
        let text = self.history(&process.args);
        self.record(step, text, Some(layer));
        Ok(())
    }

    fn process(&self, run: &Run) -> Result<Process, Diagnostic> {
        let plain = |args| Process {
            args,
            files: Vec::new(),
            note: String::new(),
        };
        let (CommandLine::Shell(text), [first, ..]) = (&run.command, &run.heredocs[..]) else {
            return Ok(plain(self.args(&run.command)));
        };
        if heredoc::announcement(text).is_none() {
            // The shell itself must understand heredocs.
            let mut script = text.clone();
            for heredoc in &run.heredocs {
                script = format!("{script}\n{}{}", heredoc.body, heredoc.announcement.name);
            }
            return Ok(plain(self.with_shell(&script)));
        }
        let note = format!(" ({})", summary(&first.body));
        if !first.body.starts_with("#!") {
            let args = self.with_shell(&first.content());
            return Ok(Process {
                note,
                ..plain(args)
            });
        }
        let name = &first.announcement.name;
        if name.contains('/') || name == "." || name == ".." {
            let message = format!("a script cannot be named `{name}`");
            return Err(Diagnostic::error(first.span, message)
                .with_help("use a heredoc name without slashes"));
        }
        let path = format!("{SCRIPT_DIR}/{name}");
        let script = InlineFile {
            path: path.clone(),
            mode: 0o755,
            content: first.content(),
        };
        Ok(Process {
            args: self.with_shell(&path),
            files: vec![script],
            note,
        })
    }

    /// Returns proxy settings that the process sees although no `ARG` gives them to it.
    ///
    /// They come behind its variables, so they win over an `ENV`, also over one that stands
    /// behind an `ARG` of that name.
    fn undeclared_proxies(&self) -> Vec<(String, String)> {
        let proxies = self.build.proxies.iter();
        let undeclared = proxies.filter(|(name, value)| self.state.env.get(name) != Some(value));
        undeclared.cloned().collect()
    }

    fn history(&self, args: &[String]) -> String {
        let declared = self.declared_args();
        let mut words = vec!["RUN".to_owned()];
        if !declared.is_empty() {
            words.push(format!("|{}", declared.len()));
        }
        words.extend(declared);
        words.extend_from_slice(args);
        words.join(" ") + " # buildkit"
    }
}
