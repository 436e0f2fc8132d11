//! `--secret`: which secrets a build has, as `docker buildx build` takes them.
//!
//! Nothing of a file is read here but its size. A variable is read, because only the command line
//! knows the environment.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kiln_exporter::csv_fields;
use kiln_worker::{MAX_SECRET, SecretSource, SecretValue, Secrets};

use crate::environment::Environment;
use crate::report::Failure;

/// One `--secret` as it was written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Spec {
    id: String,
    path: String,
    env: String,
}

/// Reads what `--secret` says; of two with one id the later one counts.
pub(super) fn secrets(written: &[String], env: &Environment) -> Result<Secrets, Failure> {
    let mut sources = Vec::new();
    for text in written.iter().filter(|text| !text.is_empty()) {
        let spec = parse(text)
            .map_err(|why| Failure::usage(format!("--secret {text}: {why}")).with_hint(FORM))?;
        sources.push((spec.id.clone(), source(&spec, env)?));
    }
    Ok(Secrets::new(sources))
}

const FORM: &str = "write --secret id=NAME,src=FILE or --secret id=NAME,env=VARIABLE";

fn parse(text: &str) -> Result<Spec, String> {
    let fields = csv_fields(text).ok_or("a quote is not closed, or stands where it must not")?;
    let (mut spec, mut kind) = (Spec::default(), String::new());
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("`{field}` is not KEY=VALUE"))?;
        match (key.to_ascii_lowercase().as_str(), value) {
            ("id", _) => value.clone_into(&mut spec.id),
            ("src" | "source", _) => value.clone_into(&mut spec.path),
            ("env", _) => value.clone_into(&mut spec.env),
            ("type", "file" | "env") => value.clone_into(&mut kind),
            ("type", _) => return Err(format!("`{value}` is no type of a secret: file or env")),
            (other, _) => return Err(format!("`{other}` is not known: id, src, env or type")),
        }
    }
    if kind == "env" && spec.env.is_empty() {
        spec.env = std::mem::take(&mut spec.path);
    }
    if spec.id.is_empty() {
        return Err("there is no id".to_owned());
    }
    Ok(spec)
}

/// A secret with an id alone is the variable of that name, or else the file.
fn source(spec: &Spec, env: &Environment) -> Result<SecretSource, Failure> {
    let Spec {
        id,
        path,
        env: name,
    } = spec;
    let (mut path, mut name) = (path.as_str(), name.as_str());
    if path.is_empty() && name.is_empty() {
        match env.raw_variable(id) {
            Some(_) => name = id,
            None => path = id,
        }
    }
    if !path.is_empty() {
        check_file(id, Path::new(path))?;
    }
    if name.is_empty() {
        return Ok(SecretSource::File(PathBuf::from(path)));
    }
    let value = env.raw_variable(name).map_or(&[][..], OsStr::as_bytes);
    if value.len() > MAX_SECRET {
        return Err(too_large(id));
    }
    Ok(SecretSource::Value(SecretValue::new(value.to_vec())))
}

fn check_file(id: &str, path: &Path) -> Result<(), Failure> {
    let name = path.display();
    let metadata = fs::metadata(path)
        .with_context(|| format!("secret `{id}`: cannot read `{name}`"))
        .map_err(Failure::user)?;
    if metadata.len() > MAX_SECRET as u64 {
        return Err(too_large(id));
    }
    Ok(())
}

fn too_large(id: &str) -> Failure {
    let limit = MAX_SECRET >> 10;
    Failure::user(anyhow::anyhow!("secret `{id}` is larger than {limit} KiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(id: &str, path: &str, env: &str) -> Spec {
        let [id, path, env] = [id, path, env].map(str::to_owned);
        Spec { id, path, env }
    }

    #[test]
    fn keys_are_those_of_buildx() {
        for (text, expected) in [
            ("id=a", spec("a", "", "")),
            ("id=a,src=b", spec("a", "b", "")),
            ("ID=a,Source=b", spec("a", "b", "")),
            ("id=a,env=B", spec("a", "", "B")),
            ("type=env,id=a,src=B", spec("a", "", "B")),
            ("type=env,id=a,src=b,env=C", spec("a", "b", "C")),
            ("type=file,id=a,src=b=c", spec("a", "b=c", "")),
            (r#"id=a,"src=b,c""#, spec("a", "b,c", "")),
            ("id=a,id=b", spec("b", "", "")),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_buildx_refuses_is_refused() {
        for (text, why) in [
            ("src=a", "no id"),
            ("id=,src=a", "no id"),
            ("id", "KEY=VALUE"),
            ("id=a,", "KEY=VALUE"),
            ("id=a,type=x", "no type"),
            ("id=a,required=true", "`required`"),
            ("id=a, src=b", "` src`"),
            (r#"id=a,"src=b"#, "quote"),
        ] {
            let failure = secrets(&[text.to_owned()], &Environment::default()).unwrap_err();
            let shown = failure.render();
            assert!(shown.contains(why), "{text}: {shown}");
            assert!(shown.contains("hint: write --secret id="), "{shown}");
        }
    }

    #[test]
    fn an_id_alone_is_a_variable_or_else_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "from file").unwrap();
        let id = file.to_str().unwrap();
        let get = |text: &str, env: &Environment| {
            let secrets = secrets(&[text.to_owned()], env).unwrap();
            secrets.get(id).unwrap().unwrap().as_bytes().to_vec()
        };
        let (empty, full) = (Environment::default(), Environment::with_variable(id, "x"));
        assert_eq!(get(&format!("id={id}"), &empty), b"from file");
        assert_eq!(get(&format!("id={id}"), &full), b"x");
        assert_eq!(get(&format!("id={id},src={id}"), &full), b"from file");
        assert_eq!(get(&format!("id={id},src={id},env=NONE"), &full), b"");
    }

    #[test]
    fn files_must_be_there_and_small() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("large");
        let written = format!("id=a,src={}", file.display());
        let check = || secrets(std::slice::from_ref(&written), &Environment::default());
        assert!(check().unwrap_err().render().contains("cannot read"));
        fs::write(&file, vec![0; MAX_SECRET]).unwrap();
        check().unwrap();
        fs::write(&file, vec![0; MAX_SECRET + 1]).unwrap();
        assert!(check().unwrap_err().render().contains("500 KiB"));
    }

    #[test]
    fn the_later_of_two_with_one_id_counts() {
        let written = ["id=a,env=A", "", "id=a,env=B"].map(str::to_owned);
        let secrets = secrets(&written, &Environment::with_variable("B", "2")).unwrap();
        assert_eq!(secrets.get("a").unwrap().unwrap().as_bytes(), b"2");
    }
}
