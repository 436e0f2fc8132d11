//! Shows the checks what each instruction stands on, and takes what they find.

use kiln_graph::{Mount, MountKind};

use crate::compile::Build;
use crate::compile::stage::StageBuild;
use crate::diagnostic::Diagnostic;
use crate::instruction::{Arg, Step};
use crate::lint::{Lint, StepView};
use crate::outline::OutlineMount;
use crate::plan::Origin;

impl Build<'_> {
    pub(super) fn begin_checks(&mut self, at: usize) {
        let parent = match self.plan.stages[at].base {
            Origin::Stage(parent) => Some(parent),
            _ => None,
        };
        self.lint.begin_stage(at, parent);
    }

    /// Returns the findings; if they are to be errors, there is one more error.
    pub(super) fn finish_checks(&mut self) -> (Vec<Diagnostic>, bool) {
        let env_of = |at: usize| self.envs[at].clone();
        self.lint.own(self.file, self.options, self.plan, &env_of);
        let (findings, error) = std::mem::replace(&mut self.lint, Lint::none()).finish();
        let ends_build = error.is_some();
        self.diagnostics.extend(error);
        (findings, ends_build)
    }
}

impl StageBuild<'_, '_> {
    pub(super) fn check(&mut self, step: &Step) {
        let shell = self.state.image.config.shell.as_ref();
        let view = StepView {
            instruction: &step.instruction,
            span: step.span,
            env: &self.state.env,
            args: &self.state.args,
            options: self.build.options,
            has_shell: shell.is_some_and(|shell| !shell.is_empty()),
            escape: self.build.file.escape,
        };
        self.build.lint.step(self.at, &view);
    }

    pub(super) fn outline_mount(&mut self, step: &Step, mount: &Mount) {
        let lines = self.build.file.lines.lines(step.span);
        let (name, required, is_secret) = match &mount.kind {
            MountKind::Secret(secret) => (secret.id.clone(), secret.required, true),
            MountKind::Ssh(ssh) => (ssh.id.clone(), ssh.required, false),
            _ => return,
        };
        let mount = OutlineMount {
            name,
            required,
            lines,
        };
        self.build.capture.mount(self.at, mount, is_secret);
    }

    pub(super) fn outline_arg(&mut self, arg: &Arg, value: Option<&str>) {
        let is_given = self.build.options.build_arg(&arg.name).is_some();
        let globals = &self.build.plan.globals;
        let is_inherited = arg.value.is_none() && !is_given && globals.get(&arg.name).is_some();
        let file = self.build.file;
        self.build
            .capture
            .arg(self.at, file, arg, value, is_inherited);
    }
}
