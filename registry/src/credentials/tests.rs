//! What configuration files mean, and what helpers may do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::docker_config::{DockerConfig, Kept};

fn password(user: &str, password: &str) -> Option<Login> {
    let (user, password) = (user.to_owned(), password.to_owned());
    Some(Login::Password { user, password })
}

fn auth(pair: &str) -> String {
    STANDARD.encode(pair)
}

async fn find(credentials: &Credentials, host: &str, repository: &str) -> Option<Login> {
    let logins = Logins::new(credentials.clone(), Duration::from_secs(10));
    logins.find(host, repository).await.unwrap()
}

#[tokio::test]
async fn inline_entries_match_whole_hosts() {
    let text = format!(
        r#"{{"auths": {{
            "https://index.docker.io/v1/": {{"auth": "{}"}},
            "azurecr.io": {{"auth": "{}"}},
            "https://a.example/v2/": {{"username": "u", "password": "p:q"}},
            "b.example:5000": {{"identitytoken": "idt"}},
            "c.example": {{"registrytoken": "rt", "auth": "{}"}},
            "d.example": {{}}
        }}, "HttpHeaders": {{}}, "detachKeys": "x"}}"#,
        auth("hub:secret"),
        auth("az:ure"),
        auth("x:y"),
    );
    let credentials = Credentials::parse(&text).unwrap();
    for (host, login) in [
        ("docker.io", password("hub", "secret")),
        ("registry-1.docker.io", password("hub", "secret")),
        ("azurecr.io", password("az", "ure")),
        ("AZURECR.io", password("az", "ure")),
        ("azurecr.io.evil.example", None),
        ("evil-azurecr.io", None),
        ("azurecr.io:5000", None),
        ("a.example", password("u", "p:q")),
        ("b.example:5000", Some(Login::Identity("idt".to_owned()))),
        ("b.example", None),
        ("c.example", Some(Login::Access("rt".to_owned()))),
        ("d.example", None),
    ] {
        assert_eq!(find(&credentials, host, "x/y").await, login, "{host}");
    }
}

#[tokio::test]
async fn longest_path_wins() {
    let text = format!(
        r#"{{"auths": {{"q.io": {{"auth": "{}"}}, "q.io/team": {{"auth": "{}"}},
            "q.io/team/app": {{"auth": "{}"}}}}}}"#,
        auth("all:1"),
        auth("team:2"),
        auth("app:3"),
    );
    let credentials = Credentials::parse(&text).unwrap();
    for (repository, user, secret) in [
        ("other/app", "all", "1"),
        ("team/x", "team", "2"),
        ("team", "team", "2"),
        ("team/app", "app", "3"),
        ("team/app/x", "app", "3"),
        ("team/apple", "team", "2"),
        ("teams/app", "all", "1"),
    ] {
        let login = find(&credentials, "q.io", repository).await;
        assert_eq!(login, password(user, secret), "{repository}");
    }
}

#[test]
fn bad_files_are_refused_without_showing_secrets() {
    assert!(Credentials::parse("{}").is_ok());
    assert!(Credentials::parse(r#"{"auths": null}"#).is_ok());
    assert!(Credentials::parse("[").is_err());
    assert!(Credentials::parse(r#"{"auths": []}"#).is_err());
    for bad in ["%%%", "bm9jb2xvbg=="] {
        let text = format!(r#"{{"auths": {{"h.io": {{"auth": "{bad}"}}}}}}"#);
        let error = Credentials::parse(&text).unwrap_err();
        assert!(matches!(&error, CredentialsError::Auth(key) if key == "h.io"));
    }
    let text = format!(
        r#"{{"auths": {{"h.io": {{"auth": "{}"}}}}}}"#,
        auth("u:hunter2")
    );
    let shown = format!("{:?}", Credentials::parse(&text).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// While one test writes a helper, no other may start one: the child would keep the file open
/// for writing, and the helper could not be executed.
static HELPERS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A folder with an executable `docker-credential-test`.
fn helper(script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("docker-credential-test");
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn with_helper(text: &str, dir: &tempfile::TempDir) -> Credentials {
    let mut path = dir.path().as_os_str().to_owned();
    path.push(":/usr/bin:/bin");
    Credentials::parse(text).unwrap().with_helper_path(path)
}

#[tokio::test]
async fn helpers_are_asked_once_and_by_dockers_names() {
    let _guard = HELPERS.lock().await;
    let dir = helper(
        r#"read -r server; echo "$1 $server" >> "$(dirname "$0")/asked"
           echo "{\"ServerURL\":\"$server\",\"Username\":\"me\",\"Secret\":\"$server\"}""#,
    );
    let credentials = with_helper(
        r#"{"credHelpers": {"docker.io": "test", "g.io": "test"}}"#,
        &dir,
    );
    let logins = Logins::new(credentials, Duration::from_secs(10));
    for repository in ["a", "b"] {
        let login = logins.find("g.io", repository).await.unwrap();
        assert_eq!(login, password("me", "g.io"));
    }
    let login = logins.find("docker.io", "a").await.unwrap();
    assert_eq!(login, password("me", HUB_KEY));
    assert_eq!(logins.find("other.io", "a").await.unwrap(), None);
    let asked = fs::read_to_string(dir.path().join("asked")).unwrap();
    assert_eq!(asked, format!("get g.io\nget {HUB_KEY}\n"));
}

#[tokio::test]
async fn helpers_keep_and_forget_logins() {
    let _guard = HELPERS.lock().await;
    let dir = helper(
        r#"kept="$(dirname "$0")/kept"
           case $1 in
             store) cat > "$kept"; if grep -q hunter2 "$kept"; then cat "$kept"; exit 1; fi ;;
             get) cat "$kept" || { echo "credentials not found in native keychain"; exit 1; } ;;
             erase) rm "$kept" ;;
           esac"#,
    );
    let mut path = dir.path().as_os_str().to_owned();
    path.push(":/usr/bin:/bin");
    let text = r#"{"credHelpers": {"r.io": "test", "q.io": "other"}, "credsStore": "test"}"#;
    let mut config = DockerConfig::parse(text)
        .unwrap()
        .with_helpers(path, Duration::from_secs(10));
    let (hub, secret) = (Server::hub(), Password::from("s3cret".to_owned()));
    assert!(!config.forget(&hub).await.unwrap());
    assert_eq!(config.keep(&hub, "u", &secret).await.unwrap(), Kept::Helper);
    let kept = fs::read_to_string(dir.path().join("kept")).unwrap();
    let expected = format!(r#"{{"ServerURL":"{HUB_KEY}","Username":"u","Secret":"s3cret"}}"#);
    assert_eq!(kept, expected);
    let file = config.to_text();
    assert!(file.contains(HUB_KEY) && !file.contains("s3cret"), "{file}");
    assert!(config.forget(&hub).await.unwrap());
    assert!(!dir.path().join("kept").exists());
    assert!(!config.to_text().contains(HUB_KEY));

    // What a helper says of its failure may be what it was given.
    let echoed = Password::from("hunter2".to_owned());
    let error = config.keep(&hub, "u", &echoed).await.unwrap_err();
    assert!(error.to_string().contains("***"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    let server: Server = "q.io".parse().unwrap();
    let error = config.keep(&server, "u", &secret).await.unwrap_err();
    assert!(
        matches!(error, CredentialsError::HelperMissing(_)),
        "{error}"
    );
}

#[tokio::test]
async fn token_user_means_identity_token() {
    let _guard = HELPERS.lock().await;
    let dir = helper(r#"echo '{"Username":"<token>","Secret":"idt"}'"#);
    let credentials = with_helper(r#"{"credsStore": "test"}"#, &dir);
    let login = find(&credentials, "a.io", "x").await;
    assert_eq!(login, Some(Login::Identity("idt".to_owned())));
}

#[tokio::test]
async fn store_without_an_answer_falls_back_to_inline() {
    let _guard = HELPERS.lock().await;
    let text = format!(
        r#"{{"credsStore": "test", "auths": {{"a.io": {{"auth": "{}"}}}}}}"#,
        auth("u:p")
    );
    let dir = helper("echo 'credentials not found in native keychain'; exit 1");
    let credentials = with_helper(&text, &dir);
    assert_eq!(find(&credentials, "a.io", "x").await, password("u", "p"));
    let missing = text.replace("test", "absent");
    let credentials = with_helper(&missing, &dir);
    assert_eq!(find(&credentials, "a.io", "x").await, password("u", "p"));
}

#[tokio::test]
async fn failing_helpers_are_errors() {
    let _guard = HELPERS.lock().await;
    let dir = helper("echo 'the keychain is locked' >&2; exit 2");
    let credentials = with_helper(r#"{"credsStore": "test"}"#, &dir);
    let limit = Duration::from_secs(10);
    let error = credentials.for_host("a.io", limit).await.unwrap_err();
    assert!(
        error.to_string().contains("the keychain is locked"),
        "{error}"
    );

    let missing = with_helper(r#"{"credHelpers": {"a.io": "absent"}}"#, &dir);
    let error = missing.for_host("a.io", limit).await.unwrap_err();
    assert!(
        matches!(error, CredentialsError::HelperMissing(_)),
        "{error}"
    );

    let outside = with_helper(r#"{"credsStore": "../test"}"#, &dir);
    let error = outside.for_host("a.io", limit).await.unwrap_err();
    assert!(matches!(error, CredentialsError::HelperName(_)), "{error}");
}

#[tokio::test]
async fn slow_helpers_are_given_up() {
    let _guard = HELPERS.lock().await;
    let dir = helper("sleep 100");
    let credentials = with_helper(r#"{"credsStore": "test"}"#, &dir);
    let limit = Duration::from_millis(50);
    let error = credentials.for_host("a.io", limit).await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
}

#[tokio::test]
async fn helper_answers_that_are_no_json_do_not_leak() {
    let _guard = HELPERS.lock().await;
    let dir = helper("echo 'hunter2'");
    let credentials = with_helper(r#"{"credsStore": "test"}"#, &dir);
    let limit = Duration::from_secs(10);
    let error = credentials.for_host("a.io", limit).await.unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}
