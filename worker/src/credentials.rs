//! What of the build's secrets and agents one step gets.
//!
//! All of it is found when the step is about to run: a step that is found in the cache needs none.

use std::path::PathBuf;

use kiln_graph::{Exec, Mount, MountKind, SecretMount, SshMount};
use kiln_runtime::{Content, MountSource, SecretFile};
use kiln_solver::{Task, blocking};

use crate::agents::{AgentError, Agents, Served, Socket};
use crate::mask::Masks;
use crate::secrets::{SecretError, SecretValue, Secrets};

/// Permission bits that a mount can have.
const MODE: u32 = 0o777;

/// The variable that says where an agent is.
const SSH_AUTH_SOCK: &str = "SSH_AUTH_SOCK";

/// What the steps and sources of a build may use of the user's.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Secrets, by id.
    pub secrets: Secrets,
    /// Agents that sign for SSH, by id.
    pub agents: Agents,
}

/// Something that a step or a source needs and cannot have.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// An agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// What a step gets. Its sockets are served as long as this lives.
#[derive(Debug)]
pub(crate) struct Granted {
    /// What to mount for each mount of the op; none for other kinds and for what is missing.
    pub(crate) mounts: Vec<Option<kiln_runtime::Mount>>,
    /// Further variables, which count more than those of the op.
    pub(crate) env: Vec<(String, String)>,
    /// Variables that are secret, which count more than all others.
    pub(crate) secret_env: Vec<(String, Content)>,
    /// What its output must not show.
    pub(crate) masks: Option<Masks>,
    sockets: Served,
}

impl CredentialError {
    /// Returns what the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Secret(error) => error.hint(),
            Self::Agent(error) => error.hint(),
        }
    }
}

impl Credentials {
    /// Returns what a step gets; `dir` is a new folder for sockets, made if there are any.
    pub(crate) async fn grant(
        &self,
        op: &Exec,
        dir: PathBuf,
        task: &Task,
    ) -> Result<Granted, CredentialError> {
        let found = self.find_secrets(op).await?;
        let mut granted = Granted {
            mounts: Vec::with_capacity(op.mounts.len()),
            env: agent_variable(op).into_iter().collect(),
            secret_env: Vec::new(),
            masks: None,
            sockets: Served::new(dir),
        };
        for (mount, value) in op.mounts.iter().zip(&found) {
            let shown = match &mount.kind {
                MountKind::Secret(secret) => {
                    let variable = secret_variable(secret, value.as_ref())?;
                    granted.secret_env.extend(variable);
                    secret_file(mount, secret, value.as_ref())
                }
                MountKind::Ssh(ssh) => {
                    let target = agent_target(op, mount);
                    self.socket(ssh, target, &mut granted.sockets, task)?
                }
                MountKind::Bind { .. } | MountKind::Cache(_) | MountKind::Tmpfs { .. } => None,
            };
            granted.mounts.push(shown);
        }
        granted.masks = masks_of(found.into_iter().flatten().collect()).await;
        Ok(granted)
    }

    /// Returns the value of each mount that is a secret and was given.
    async fn find_secrets(&self, op: &Exec) -> Result<Vec<Option<SecretValue>>, SecretError> {
        let wanted = op.mounts.iter().map(|mount| match &mount.kind {
            MountKind::Secret(secret) => Some((secret.id.clone(), secret.required)),
            _ => None,
        });
        let (wanted, secrets) = (wanted.collect::<Vec<_>>(), self.secrets.clone());
        if wanted.iter().all(Option::is_none) {
            return Ok(vec![None; wanted.len()]);
        }
        let find = move |wanted: Option<(String, bool)>| {
            let Some((id, required)) = wanted else {
                return Ok(None);
            };
            match secrets.get(&id)? {
                None if required => Err(SecretError::Missing { id }),
                found => Ok(found),
            }
        };
        blocking(move || wanted.into_iter().map(find).collect()).await
    }

    fn socket(
        &self,
        ssh: &SshMount,
        target: String,
        sockets: &mut Served,
        task: &Task,
    ) -> Result<Option<kiln_runtime::Mount>, AgentError> {
        let id = ssh.id.clone();
        let agent = match self.agents.get(&id) {
            Some(agent) => agent,
            None if ssh.required => return Err(AgentError::Missing { id }),
            None => return Ok(None),
        };
        let socket = Socket {
            id: &id,
            mode: ssh.mode & MODE,
            uid: ssh.uid,
            gid: ssh.gid,
        };
        let path = match sockets.add(agent, socket, task) {
            Ok(path) => path,
            Err(source) => return Err(AgentError::Serve { id, source }),
        };
        Ok(Some(kiln_runtime::Mount {
            target,
            source: MountSource::Socket { path },
            read_only: false,
        }))
    }
}

/// Returns the path at which a step finds an agent: its own, or the usual one.
fn agent_target(op: &Exec, mount: &Mount) -> String {
    let all = op.mounts.iter();
    let is_ssh = |mount: &&Mount| matches!(mount.kind, MountKind::Ssh(_));
    let number = all
        .filter(is_ssh)
        .position(|other| std::ptr::eq(other, mount))
        .unwrap_or_default();
    let usual = || format!("/run/buildkit/ssh_agent.{number}");
    mount.target.clone().unwrap_or_else(usual)
}

/// Names the first agent, whether or not it was given, unless the op names one itself.
fn agent_variable(op: &Exec) -> Option<(String, String)> {
    let is_named = op.env.iter().any(|(name, _)| name == SSH_AUTH_SOCK);
    let mut mounts = op.mounts.iter();
    let first = mounts.find(|mount| matches!(mount.kind, MountKind::Ssh(_)));
    let first = first.filter(|_| !is_named)?;
    Some((SSH_AUTH_SOCK.to_owned(), agent_target(op, first)))
}

/// A secret that is missing is an empty variable.
fn secret_variable(
    secret: &SecretMount,
    value: Option<&SecretValue>,
) -> Result<Option<(String, Content)>, SecretError> {
    let Some(name) = &secret.env else {
        return Ok(None);
    };
    let bytes = value.map(SecretValue::as_bytes).unwrap_or_default();
    if bytes.contains(&0) {
        let (id, name) = (secret.id.clone(), name.clone());
        return Err(SecretError::ZeroByte { id, name });
    }
    Ok(Some((name.clone(), Content(bytes.to_vec()))))
}

fn secret_file(
    mount: &Mount,
    secret: &SecretMount,
    value: Option<&SecretValue>,
) -> Option<kiln_runtime::Mount> {
    let (target, value) = (mount.target.clone()?, value?);
    let file = SecretFile {
        content: Content(value.as_bytes().to_vec()),
        mode: secret.mode & MODE,
        uid: secret.uid,
        gid: secret.gid,
    };
    Some(kiln_runtime::Mount {
        target,
        source: MountSource::File(file),
        read_only: true,
    })
}

async fn masks_of(values: Vec<SecretValue>) -> Option<Masks> {
    if values.is_empty() {
        return None;
    }
    blocking(move || Masks::new(values.iter().map(SecretValue::as_bytes))).await
}
