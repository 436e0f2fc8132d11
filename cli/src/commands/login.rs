//! `kiln login` and `kiln logout`: who one is at a registry, where Docker keeps it.
//!
//! What is kept was taken by the registry before. The file is replaced as a whole, readable by its
//! owner only; all that Docker has in it stays.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use kiln_registry::{Client, Config, Credentials, DockerConfig, Kept, Password, Server};

use crate::environment::Environment;
use crate::prompt::{ask, ask_hidden};
use crate::registry_args::{LoginArgs, LogoutArgs};
use crate::report::{Failure, FailureKind};
use crate::session::{config_of, credentials_of};

const HUB_HINT: &str = "Log in with your Docker ID to push and pull images from Docker Hub.";
/// SIGINT, which the key for it would have sent.
const INTERRUPTED: u8 = 2;

/// Verifies credentials and keeps them.
pub(crate) fn login(
    args: &LoginArgs,
    env: &Environment,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let server = server_of(args.server.as_deref())?;
    let place = Place::find(env)?;
    let runtime = runtime()?;
    let _entered = runtime.enter();
    if args.username.is_none() && args.password.is_none() {
        let known = runtime.block_on(login_as_known(&server, args, env))?;
        if known {
            return writeln!(out, "Login Succeeded").map_err(Failure::user);
        }
    }
    let (user, password) = who(args, &server)?;
    let credentials = Credentials::of(&server, &user, &password);
    let spoken = config_of(env, credentials, &args.registry())?;
    let mut config = place.read(env)?;
    let kept = runtime.block_on(async {
        let client = Client::new(spoken)?;
        client.login(&server).await?;
        Ok::<_, anyhow::Error>(config.keep(&server, &user, &password).await?)
    });
    let kept = kept.map_err(Failure::user)?;
    place.write(&config)?;
    if kept == Kept::File {
        tell(&format!(
            "WARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential \
             helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/",
            place.path.display()
        ))?;
    }
    if env.has_auth_config() {
        tell("WARNING! DOCKER_AUTH_CONFIG is set: its logins are used, and not this one.")?;
    }
    writeln!(out, "Login Succeeded").map_err(Failure::user)
}

/// Forgets credentials.
pub(crate) fn logout(
    args: &LogoutArgs,
    env: &Environment,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let server = server_of(args.server.as_deref())?;
    let place = Place::find(env)?;
    let mut config = place.read(env)?;
    let was_known = runtime()?
        .block_on(config.forget(&server))
        .map_err(Failure::user)?;
    if !was_known {
        return writeln!(out, "Not logged in to {server}").map_err(Failure::user);
    }
    place.write(&config)?;
    writeln!(out, "Removing login credentials for {server}").map_err(Failure::user)
}

fn server_of(typed: Option<&str>) -> Result<Server, Failure> {
    let Some(text) = typed else {
        return Ok(Server::hub());
    };
    text.parse()
        .map_err(|_| Failure::usage(format!("`{text}` is not a host name with an optional port")))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().map_err(Failure::user)
}

/// Tries what is kept for a server; returns false if nothing is, or the registry does not take it.
async fn login_as_known(
    server: &Server,
    args: &LoginArgs,
    env: &Environment,
) -> Result<bool, Failure> {
    let config = config_of(env, credentials_of(env)?, &args.registry())?;
    let credentials = &config.credentials;
    let has_login = credentials.has(server, config.helper_timeout).await;
    if !has_login.map_err(Failure::user)? {
        return Ok(false);
    }
    tell("Authenticating with existing credentials...")?;
    let client = Client::new(config).map_err(Failure::user)?;
    match client.login(server).await {
        Ok(()) => Ok(true),
        Err(error) if io::stdin().is_terminal() => {
            let error = anyhow::Error::new(error);
            tell(&format!("Login did not succeed: {error:#}"))?;
            Ok(false)
        }
        Err(error) => Err(Failure::user(error)),
    }
}

/// Returns the user name and the password: typed, from standard input, or asked for.
fn who(args: &LoginArgs, server: &Server) -> Result<(String, Password), Failure> {
    if args.password.is_some() {
        tell("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")?;
    }
    if args.password_stdin {
        let user = args.username.clone().unwrap_or_default();
        return Ok((given(user, "user name")?, password_from_stdin()?));
    }
    let must_ask = args.username.is_none() || args.password.is_none();
    if must_ask && !io::stdin().is_terminal() {
        let error = anyhow!("cannot perform an interactive login from a non TTY device");
        let hint = "give --username, and the password with --password-stdin";
        return Err(Failure::new(FailureKind::Usage, error).with_hint(hint));
    }
    let user = match &args.username {
        Some(user) => user.clone(),
        None => {
            if *server == Server::hub() {
                tell(HUB_HINT)?;
            }
            answer(ask("Username: "))?
        }
    };
    let user = given(user.trim().to_owned(), "user name")?;
    let password = match &args.password {
        Some(password) => password.clone(),
        None => Password::from(given(answer(ask_hidden("Password: "))?, "password")?),
    };
    Ok((user, password))
}

fn answer(asked: io::Result<Option<String>>) -> Result<String, Failure> {
    match asked.map_err(Failure::user)? {
        Some(line) => Ok(line),
        None => Err(Failure::new(
            FailureKind::Stopped(INTERRUPTED),
            anyhow!("nobody logged in"),
        )),
    }
}

fn given(text: String, what: &str) -> Result<String, Failure> {
    if text.is_empty() {
        return Err(Failure::usage(format!("the {what} is empty")));
    }
    Ok(text)
}

/// Reads all of standard input; the end of a line at its end is not part of the password.
fn password_from_stdin() -> Result<Password, Failure> {
    let mut text = String::new();
    let read = io::stdin().lock().read_to_string(&mut text);
    read.context("cannot read the password from standard input")
        .map_err(Failure::user)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok(Password::from(given(text.to_owned(), "password")?))
}

fn tell(text: &str) -> Result<(), Failure> {
    writeln!(io::stderr(), "{text}").map_err(Failure::user)
}

/// The file that logins are kept in.
struct Place {
    path: PathBuf,
}

impl Place {
    fn find(env: &Environment) -> Result<Self, Failure> {
        let path = env.docker_config_file().ok_or_else(|| {
            Failure::usage("there is no home folder to keep the login in")
                .with_hint("set DOCKER_CONFIG to a folder")
        })?;
        Ok(Self { path })
    }

    fn read(&self, env: &Environment) -> Result<DockerConfig, Failure> {
        let failed = || format!("cannot use the credentials in `{}`", self.path.display());
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(failed).map_err(Failure::user),
        };
        let config = DockerConfig::parse(&text);
        let config = config.with_context(failed).map_err(Failure::user)?;
        let timeout = Config::default().helper_timeout;
        Ok(config.with_helpers(env.path.clone(), timeout))
    }

    fn write(&self, config: &DockerConfig) -> Result<(), Failure> {
        let failed = || format!("cannot write `{}`", self.path.display());
        let written = replace_file(&self.path, config.to_text().as_bytes());
        written.with_context(failed).map_err(Failure::user)
    }
}

/// Puts a file that only its owner can read in the place of the one at `path`.
fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    // A link stays one; what it leads to is replaced.
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    let id = std::process::id();
    let temporary = path.with_extension(format!("json.{id}.tmp"));
    let written = write_private(&temporary, &path, content);
    let replaced = written.and_then(|()| fs::rename(&temporary, &path));
    if replaced.is_err() {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %temporary.display(), %error, "it stays");
            }
            _ => {}
        }
    }
    replaced
}

fn write_private(temporary: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file: File = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)?;
    if let Ok(old) = fs::metadata(path) {
        // Whose file it was: another's only if root writes it.
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
    }
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn the_file_is_private_and_links_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        replace_file(&path, b"{}").unwrap();
        let link = dir.path().join("link.json");
        symlink(&path, &link).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace_file(&link, b"{ }").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"{ }");
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let n_files = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(n_files, 1, "nothing temporary stays");
    }

    #[test]
    fn servers_are_hosts() {
        assert_eq!(server_of(None).unwrap(), Server::hub());
        let failure = server_of(Some("a b")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage);
    }
}
