//! One stage while it is evaluated: dispatches its instructions, keeps its variables.

use kiln_graph::{Input, MakeDir, Meta, Op, VertexId};

use crate::compile::naming::Naming;
use crate::compile::{Build, DEFAULT_PATH, State};
use crate::diagnostic::Diagnostic;
use crate::env::parts;
use crate::instruction::{Arg, Instruction, Pair, Step};
use crate::lines::Word;
use crate::options::HistoryStep;
use crate::paths;
use crate::plan::{Origin, expanded};

/// Arguments for tools around the build, which no step sees.
const NEVER_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// A stage that is being evaluated.
pub(super) struct StageBuild<'b, 'a> {
    pub(super) build: &'b mut Build<'a>,
    pub(super) at: usize,
    pub(super) naming: Naming,
    pub(super) state: State,
    /// True if this stage, not only its base, has a `CMD`.
    pub(super) has_cmd: bool,
}

impl<'b, 'a> StageBuild<'b, 'a> {
    pub(super) fn new(
        build: &'b mut Build<'a>,
        at: usize,
        naming: Naming,
        mut state: State,
    ) -> Self {
        let env = &mut state.image.config.env;
        if !env
            .iter()
            .any(|entry| entry.split('=').next() == Some("PATH"))
        {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        // What the config says comes after inherited arguments, so it wins over them.
        if !state.env.is_list(env) {
            for (at, entry) in env.iter().enumerate() {
                let (name, value) = parts(entry);
                state.env.set(name, value);
                state.env_places.entry(name.to_owned()).or_insert(at);
            }
        }
        Self {
            build,
            at,
            naming,
            state,
            has_cmd: false,
        }
    }

    pub(super) fn into_state(self) -> State {
        self.state
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.build.diagnostics.push(diagnostic);
    }

    /// Evaluates an instruction; `number` is its place in the stage.
    pub(super) fn step(&mut self, number: usize, step: &Step) -> Result<(), Diagnostic> {
        if let Some(refusal) = &step.refusal {
            return Err(refusal.clone());
        }
        self.check(step);
        match &step.instruction {
            Instruction::Arg(args) => self.arg(step, args),
            Instruction::Env(pairs) => self.env(step, pairs),
            Instruction::Workdir(path) => self.workdir(step, path),
            Instruction::Run(run) => self.run(number, step, run),
            Instruction::Copy(files) => {
                let origin = self.build.plan.stages[self.at].sources.get(&(number, 0));
                self.copy(step, files, origin)
            }
            other => self.configure(step, other),
        }
    }

    /// Adds an entry to the history.
    pub(super) fn record(&mut self, step: &Step, created_by: String, layer: Option<VertexId>) {
        self.state.steps.push(HistoryStep {
            created_by,
            layer,
            lines: self.build.file.lines.lines(step.span),
        });
    }

    /// Adds a vertex that makes the stage's next layer.
    pub(super) fn add_layer(&mut self, op: Op, inputs: Vec<Input>, meta: Meta) -> VertexId {
        let id = self.build.graph.add(op, inputs, meta);
        self.state.root = Some(id);
        id
    }

    pub(super) fn meta(&self, step: &Step, name: String) -> Meta {
        Meta {
            ignore_cache: self.build.ignores_cache(self.at),
            ..self.build.meta(name, step.span, &self.naming)
        }
    }

    pub(super) fn expand(&self, word: &Word) -> Result<String, Diagnostic> {
        expanded(self.build.file, word, &self.state.env)
    }

    pub(super) fn expand_all(&self, words: &[Word]) -> Result<Vec<String>, Diagnostic> {
        words.iter().map(|word| self.expand(word)).collect()
    }

    pub(super) fn expand_pairs(&self, pairs: &[Pair]) -> Result<Vec<(String, String)>, Diagnostic> {
        let one = |pair: &Pair| Ok((self.expand(&pair.key)?, self.expand(&pair.value)?));
        pairs.iter().map(one).collect()
    }

    /// Returns the working directory as a clean path.
    pub(super) fn dir(&self) -> String {
        paths::clean(&self.state.image.config.working_dir)
    }

    /// Returns the root that `COPY --from` or a context stands for.
    pub(super) fn source_root(
        &mut self,
        step: &Step,
        origin: &Origin,
    ) -> Result<Input, Diagnostic> {
        match origin {
            Origin::Scratch => Ok(None),
            Origin::Image(key) => self.build.image_root(key, step.span, &self.naming),
            Origin::Local(name) => Ok(Some(self.build.local(name))),
            Origin::Stage(stage) => match self.build.roots[*stage] {
                Some(root) => Ok(root),
                None => Err(self.not_before(step, *stage)),
            },
        }
    }

    fn not_before(&self, step: &Step, stage: usize) -> Diagnostic {
        let name = |at: usize| {
            let name = &self.build.file.stages[at].name;
            name.clone().unwrap_or_else(|| at.to_string())
        };
        let verb = match step.instruction {
            Instruction::Run(_) => "mount",
            _ => "copy",
        };
        let message = format!(
            "cannot {verb} from stage `{}`, it needs to be defined before current stage `{}`",
            name(stage),
            name(self.at)
        );
        Diagnostic::error(step.span, message)
    }

    fn arg(&mut self, step: &Step, args: &[Arg]) -> Result<(), Diagnostic> {
        let mut texts = Vec::new();
        for arg in args {
            let value = self.arg_value(arg)?;
            if let Some(value) = &value
                && !NEVER_IN_ENV.contains(&arg.name.as_str())
            {
                self.state.env.set(&arg.name, value);
            }
            texts.push(match &value {
                Some(value) => format!("{}={value}", arg.name),
                None => arg.name.clone(),
            });
            self.outline_arg(arg, value.as_deref());
            self.state.args.declare(&arg.name, value);
        }
        self.record(step, format!("ARG {}", texts.join(" ")), None);
        Ok(())
    }

    fn arg_value(&self, arg: &Arg) -> Result<Option<String>, Diagnostic> {
        if let Some(value) = self.build.options.build_arg(&arg.name) {
            return Ok(Some(value.to_owned()));
        }
        match &arg.value {
            Some(word) => self.expand(word).map(Some),
            None => Ok(self.build.plan.globals.get(&arg.name).map(str::to_owned)),
        }
    }

    fn env(&mut self, step: &Step, pairs: &[Pair]) -> Result<(), Diagnostic> {
        let mut text = String::from("ENV");
        for (name, value) in self.expand_pairs(pairs)? {
            let entry = format!("{name}={value}");
            text.push(' ');
            text.push_str(&entry);
            self.state.env.set(&name, &value);
            let entries = &mut self.state.image.config.env;
            match self.state.env_places.get(&name) {
                Some(&old) => entries[old] = entry,
                None => {
                    self.state.env_places.insert(name, entries.len());
                    entries.push(entry);
                }
            }
        }
        self.record(step, text, None);
        Ok(())
    }

    fn workdir(&mut self, step: &Step, path: &Word) -> Result<(), Diagnostic> {
        let path = self.expand(path)?;
        let dir = paths::from_dir(&self.state.image.config.working_dir, &path);
        self.state.image.config.working_dir.clone_from(&dir);
        let cleaned = paths::clean(&dir);
        let mut layer = None;
        if cleaned != "/" {
            let name = self.naming.of_words(&step.code, &self.state.env);
            let op = MakeDir {
                path: cleaned,
                mode: 0o755,
                user: self.state.image.config.user.clone(),
            };
            let (root, meta) = (self.state.root, self.meta(step, name));
            layer = Some(self.add_layer(Op::MakeDir(op), vec![root], meta));
        }
        self.record(step, format!("WORKDIR {dir}"), layer);
        Ok(())
    }

    /// Returns the variables for the history of `RUN`: each argument once, with its value now.
    pub(super) fn declared_args(&self) -> Vec<String> {
        let text = |(name, value): &(String, Option<String>)| {
            let now = self.state.env.get(name).or(value.as_deref());
            format!("{name}={}", now.unwrap_or_default())
        };
        self.state.args.iter().map(text).collect()
    }
}
