//! `RUN --mount`: options to mounts of the graph, and to inputs of the step.

use kiln_graph::{CacheMount, Input, Mount, MountKind, NewFolder, SecretMount, Sharing, SshMount};

use crate::compile::remote::input_number;
use crate::compile::stage::StageBuild;
use crate::diagnostic::{Diagnostic, Span};
use crate::instruction::{Run, Step};
use crate::options::CONTEXT;
use crate::parse::mount::{MountFlag, MountOptions, MountType};
use crate::paths;

/// The argument that keeps the cache mounts of one project from those of another.
const CACHE_NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";
const NEW_FOLDER_MODE: u32 = 0o755;
const SECRET_MODE: u32 = 0o400;
const SOCKET_MODE: u32 = 0o600;

/// A mount while it is compiled.
struct Request<'a> {
    step: &'a Step,
    /// The place of the step in its stage, and of the mount in the step.
    key: (usize, usize),
    span: Span,
    options: MountOptions,
}

impl StageBuild<'_, '_> {
    /// Returns the mounts of a step; adds what they show to its inputs.
    pub(super) fn mounts(
        &mut self,
        number: usize,
        step: &Step,
        run: &Run,
        inputs: &mut Vec<Input>,
    ) -> Result<Vec<Mount>, Diagnostic> {
        let mut mounts = Vec::new();
        for (at, flag) in run.mounts.iter().enumerate() {
            let request = Request {
                step,
                key: (number, at),
                span: flag.span,
                options: self.options(flag)?,
            };
            let mount = self.mount(&request, inputs)?;
            self.outline_mount(step, &mount);
            mounts.push(mount);
        }
        Ok(mounts)
    }

    fn options(&self, flag: &MountFlag) -> Result<MountOptions, Diagnostic> {
        flag.options(&|word| self.expand(word))
    }

    fn mount(
        &mut self,
        request: &Request<'_>,
        inputs: &mut Vec<Input>,
    ) -> Result<Mount, Diagnostic> {
        let options = &request.options;
        let kind = match options.kind {
            MountType::Secret => return Ok(self.secret(options)),
            MountType::Ssh => return self.ssh(request),
            MountType::Bind => MountKind::Bind {
                input: self.mounted_input(request, inputs)?,
                source: paths::clean(&options.source),
                writable: !options.read_only,
            },
            MountType::Cache => MountKind::Cache(self.cache(request, inputs)?),
            MountType::Tmpfs => MountKind::Tmpfs {
                size: options.size,
                read_only: options.read_only,
            },
        };
        let target = self.target(request)?;
        let target = Some(target);
        Ok(Mount { target, kind })
    }

    /// Returns the number of the input that a mount shows.
    fn mounted_input(
        &mut self,
        request: &Request<'_>,
        inputs: &mut Vec<Input>,
    ) -> Result<usize, Diagnostic> {
        let origin = self.build.plan.stages[self.at].sources.get(&request.key);
        let root = match origin {
            Some(origin) => self.source_root(request.step, origin)?,
            None => Some(self.build.local(CONTEXT)),
        };
        Ok(input_number(inputs, root))
    }

    fn cache(
        &mut self,
        request: &Request<'_>,
        inputs: &mut Vec<Input>,
    ) -> Result<CacheMount, Diagnostic> {
        let options = &request.options;
        let has_base = !options.from.is_empty();
        let input = match has_base {
            true => Some(self.mounted_input(request, inputs)?),
            false => None,
        };
        let source = paths::clean(&options.source);
        let name = match options.id.is_empty() {
            true => paths::cleaned(&options.target),
            false => options.id.clone(),
        };
        let namespace = self.build.options.build_arg(CACHE_NAMESPACE);
        Ok(CacheMount {
            id: format!("{}/{name}", namespace.unwrap_or_default()),
            sharing: options.sharing.unwrap_or(Sharing::Shared),
            input,
            new: new_folder(options).filter(|_| source == "/"),
            source,
            read_only: options.read_only,
        })
    }

    /// Returns the target as an absolute path; without one it is the working directory.
    fn target(&self, request: &Request<'_>) -> Result<String, Diagnostic> {
        let written = &request.options.target;
        let target = self.absolute(written);
        if target != "/" {
            return Ok(target);
        }
        let help = match written.is_empty() {
            true => "give it a `target`: without one, it is the working directory",
            false => "choose a folder in which it is shown",
        };
        Err(Diagnostic::error(request.span, "invalid mount target `/`").with_help(help))
    }

    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => paths::clean(path),
            false => paths::clean(&format!("{}/{path}", self.dir())),
        }
    }

    fn secret(&self, options: &MountOptions) -> Mount {
        let given = [&options.source, &options.id];
        let id = given.into_iter().find(|text| !text.is_empty());
        let id = id.map_or_else(|| base(&options.target), String::as_str);
        let target = match (options.target.as_str(), &options.env) {
            ("", Some(_)) => None,
            ("", None) => Some(format!("/run/secrets/{}", base(id))),
            (target, _) => Some(self.absolute(target)),
        };
        let secret = SecretMount {
            id: id.to_owned(),
            env: options.env.clone(),
            required: options.required,
            mode: options.mode.unwrap_or(SECRET_MODE) & 0o7777,
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
        };
        let kind = MountKind::Secret(secret);
        Mount { target, kind }
    }

    fn ssh(&self, request: &Request<'_>) -> Result<Mount, Diagnostic> {
        let options = &request.options;
        if !options.source.is_empty() {
            return Err(Diagnostic::error(
                request.span,
                "ssh does not support source",
            ));
        }
        let ssh = SshMount {
            id: match options.id.is_empty() {
                true => "default".to_owned(),
                false => options.id.clone(),
            },
            required: options.required,
            mode: options.mode.unwrap_or(SOCKET_MODE) & 0o7777,
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
        };
        let target = Some(&options.target).filter(|target| !target.is_empty());
        Ok(Mount {
            target: target.map(|target| self.absolute(target)),
            kind: MountKind::Ssh(ssh),
        })
    }
}

fn new_folder(options: &MountOptions) -> Option<NewFolder> {
    let is_given = options.mode.is_some() || options.uid.is_some() || options.gid.is_some();
    is_given.then(|| NewFolder {
        mode: options.mode.unwrap_or(NEW_FOLDER_MODE) & 0o7777,
        uid: options.uid.unwrap_or(0),
        gid: options.gid.unwrap_or(0),
    })
}

/// Returns the last name of a path.
fn base(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}
