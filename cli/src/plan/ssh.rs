//! `--ssh`: which agents a build has, as `docker buildx build` takes them.

use std::path::PathBuf;

use kiln_worker::{Agent, AgentError, Agents};

use crate::environment::Environment;
use crate::report::Failure;

/// The id of an agent that is not named.
const DEFAULT_ID: &str = "default";

/// Reads what `--ssh` says, and the keys that it names.
pub(super) fn agents(written: &[String], env: &Environment) -> Result<Agents, Failure> {
    let mut agents: Vec<(String, Agent)> = Vec::new();
    for text in written.iter().filter(|text| !text.is_empty()) {
        let (id, paths) = parse(text);
        if agents.iter().any(|(known, _)| known == id) {
            return Err(Failure::usage(format!(
                "--ssh {text}: there is an agent `{id}` already"
            )));
        }
        let paths = if paths.is_empty() {
            vec![host_agent(text, env)?]
        } else {
            paths
        };
        let agent = Agent::open(&paths).map_err(|error| refused(text, error))?;
        agents.push((id.to_owned(), agent));
    }
    Ok(Agents::new(agents))
}

/// Returns the id and the paths: none stand for the agent of the user.
fn parse(text: &str) -> (&str, Vec<PathBuf>) {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { DEFAULT_ID } else { id };
    let paths = if paths.is_empty() {
        Vec::new()
    } else {
        paths.split(',').map(PathBuf::from).collect()
    };
    (id, paths)
}

fn host_agent(text: &str, env: &Environment) -> Result<PathBuf, Failure> {
    let socket = env.raw_variable("SSH_AUTH_SOCK").unwrap_or_default();
    if socket.is_empty() {
        let message = format!("--ssh {text}: SSH_AUTH_SOCK does not name an agent");
        let hint = "start ssh-agent, or name a socket or key files: --ssh ID=PATH[,PATH…]";
        return Err(Failure::usage(message).with_hint(hint));
    }
    Ok(PathBuf::from(socket))
}

fn refused(text: &str, error: AgentError) -> Failure {
    let hint = error.hint();
    let error = anyhow::Error::new(error).context(format!("--ssh {text}"));
    let failure = Failure::user(error);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn check(written: &[&str], env: &Environment) -> Result<Agents, String> {
        let written: Vec<String> = written.iter().map(|&text| text.to_owned()).collect();
        agents(&written, env).map_err(|failure| failure.render())
    }

    #[test]
    fn an_agent_has_an_id_and_paths() {
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(parse("default"), ("default", Vec::new()));
        assert_eq!(parse("a="), ("a", Vec::new()));
        assert_eq!(parse("=/x"), ("default", paths(&["/x"])));
        assert_eq!(parse("a=/x=y,z"), ("a", paths(&["/x=y", "z"])));
    }

    #[test]
    fn the_agent_of_the_user_is_that_of_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let _listener = UnixListener::bind(&socket).unwrap();
        let env = Environment::with_variable("SSH_AUTH_SOCK", socket.to_str().unwrap());
        let agents = check(&["default", "", "other"], &env).unwrap();
        assert!(agents.get("default").is_some() && agents.get("other").is_some());
        assert!(agents.get("").is_none());
        for env in [
            Environment::default(),
            Environment::with_variable("SSH_AUTH_SOCK", ""),
        ] {
            let text = check(&["default"], &env).unwrap_err();
            assert!(text.contains("SSH_AUTH_SOCK"), "{text}");
            assert!(check(&[], &env).is_ok(), "nobody asked for it");
        }
    }

    #[test]
    fn what_cannot_be_an_agent_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let _listener = UnixListener::bind(&socket).unwrap();
        let text = dir.path().join("text");
        std::fs::write(&text, "no key\n").unwrap();
        let (socket, text) = (socket.display(), text.display());
        let env = Environment::default();
        for (written, why) in [
            (
                vec![format!("a={socket}"), format!("a={socket}")],
                "already",
            ),
            (vec![format!("a={socket},{socket}")], "single socket"),
            (vec!["a=/no/such/file".to_owned()], "`/no/such/file`"),
            (vec![format!("a={text}")], "not a private key"),
        ] {
            let written: Vec<&str> = written.iter().map(String::as_str).collect();
            let shown = check(&written, &env).unwrap_err();
            assert!(shown.contains(why), "{written:?}: {shown}");
        }
    }
}
