//! Base images: platforms, media types, compressions, passwords, certificates.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{
    Context, Flow, Kiln, Lab, Proxy, Registry, command, copy_to_registry, make_base,
    make_certificates, repository, require_tools, run,
};

const DOCKERFILE: &str = "ARG BASE\nFROM $BASE\nRUN echo it runs > /ran\n";
const STEP: &str = "RUN echo it runs > /ran";

/// Makes a layout of busybox with another compression.
fn layout_with(compression: &str, dir: &Path) -> std::path::PathBuf {
    let busybox = make_base("busybox");
    let (tar, layout) = (dir.join("rootfs.tar"), dir.join("layout"));
    let image = crate::support::Image::open(&busybox);
    let blob = busybox
        .join("blobs")
        .join(image.layer_digest(0).replace(':', "/"));
    let bytes = run(command("gzip").arg("-dc").arg(blob)).stdout;
    fs::write(&tar, bytes).unwrap();
    let script = repository().join("tests/support/bases.sh");
    run(command(script)
        .arg("layout")
        .arg(&tar)
        .arg(&layout)
        .args(["1", compression]));
    layout
}

#[test]
fn layers_may_be_gzip_zstd_or_plain() {
    let Some(lab) = Lab::require() else {
        return;
    };
    if !require_tools(&["zstd"]) {
        return;
    }
    for compression in ["gzip", "zstd", "none"] {
        let dir = tempfile::tempdir().unwrap();
        let name = lab.registry.name(&format!("base-{compression}:1"));
        copy_to_registry(&layout_with(compression, dir.path()), "1", &name, &[]);
        Kiln::new()
            .build(&Context::new(DOCKERFILE))
            .base(&name)
            .ok()
            .ran(&[STEP]);
    }
}

#[test]
fn docker_media_types_are_understood() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let name = lab.registry.name("docker:1");
    copy_to_registry(&make_base("busybox"), "latest", &name, &["--format=v2s2"]);
    lab.kiln
        .build(&Context::new(DOCKERFILE))
        .base(&name)
        .ok()
        .ran(&[STEP]);
}

#[test]
fn platform_is_taken_from_an_index() {
    let Some(lab) = Lab::require() else {
        return;
    };
    // An image of two platforms, which differ in a file; made by kiln, as COPY needs no emulator.
    let context = Context::new("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n")
        .with("amd64", "amd64")
        .with("arm64", "arm64");
    let name = lab.registry.name("two:1");
    let build = lab
        .kiln
        .build(&context)
        .arg("--platform=linux/amd64,linux/arm64");
    build.args(["--push", "-t", &name]).ok();
    let context = Context::new("ARG BASE\nFROM $BASE\nCOPY --from=0 /arch /copy\n");
    context.edit("FROM $BASE\n", "FROM $BASE\nFROM scratch\n");
    for arch in ["amd64", "arm64"] {
        let dest = lab.kiln.out(arch);
        let build = lab.kiln.build(&context).base(&name);
        build
            .arg(format!("--platform=linux/{arch}"))
            .arg("-o")
            .arg(&dest)
            .ok();
        assert_eq!(fs::read_to_string(dest.join("copy")).unwrap(), arch);
    }
    let build = lab
        .kiln
        .build(&context)
        .base(&name)
        .arg("--platform=linux/s390x");
    build.fails(1).says(&["s390x"]);
}

#[test]
fn base_can_be_named_by_digest() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let digest = crate::support::Image::open(&make_base("busybox")).digest();
    let name = lab.registry.name(&format!("busybox@{digest}"));
    lab.kiln
        .build(&Context::new(DOCKERFILE))
        .base(&name)
        .ok()
        .ran(&[STEP]);
    let wrong = name.replace(&digest[7..17], "0123456789");
    lab.kiln
        .build(&Context::new(DOCKERFILE))
        .base(&wrong)
        .fails(1);
}

#[test]
fn nothing_is_pulled_twice_and_nothing_unneeded() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let proxy = Proxy::before(lab.registry.host());
    let base = format!("{}/busybox:latest", proxy.host());
    let n_blobs = |requests: &[String]| requests.iter().filter(|r| r.contains("/blobs/")).count();
    let labels = Context::new("ARG BASE\nFROM $BASE\nLABEL a=b\n");
    lab.kiln.build(&labels).base(&base).ok();
    // Of an image whose files nobody reads only the config is fetched.
    assert_eq!(n_blobs(&proxy.take_requests()), 1);
    let context = Context::new(DOCKERFILE);
    lab.kiln.build(&context).base(&base).ok();
    assert_eq!(n_blobs(&proxy.take_requests()), 1);
    context.edit("it runs", "it runs again");
    lab.kiln.build(&context).base(&base).ok();
    assert_eq!(n_blobs(&proxy.take_requests()), 0);
}

#[test]
fn transfer_that_stands_still_goes_on() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let proxy = Proxy::before(lab.registry.host());
    let base = format!("{}/busybox:latest", proxy.host());
    proxy.hold_after(Flow::Down, 300_000);
    let context = Context::new(DOCKERFILE);
    let build = lab.kiln.build(&context).base(&base).start();
    proxy.wait_until_held();
    proxy.release();
    build.wait().succeeded().ran(&[STEP]);
}

/// base64 of `kiln:secret`.
const BASIC: &str = "a2lsbjpzZWNyZXQ=";

#[test]
fn password_comes_from_dockers_config() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let registry = Registry::with_password();
    let name = registry.name("private:1");
    let creds = "--dest-creds=kiln:secret";
    copy_to_registry(
        &make_base("busybox"),
        "latest",
        &name,
        &["--preserve-digests", creds],
    );
    let context = Context::new(DOCKERFILE);
    let outcome = lab.kiln.build(&context).base(&name).fails(1);
    outcome.says(&["Dockerfile:2", &name]);
    let config = lab.kiln.home().join(".docker");
    fs::create_dir(&config).unwrap();
    let text = json!({ "auths": { registry.host(): { "auth": BASIC } } });
    fs::write(config.join("config.json"), text.to_string()).unwrap();
    let pushed = registry.name("private/result:1");
    let outcome = lab
        .kiln
        .build(&context)
        .base(&name)
        .args(["--push", "-t", &pushed])
        .ok();
    outcome.ran(&[STEP]);
    assert!(!outcome.stderr.contains(BASIC) && !outcome.stderr.contains("secret"));
}

#[test]
fn own_certificate_authority_is_trusted_when_given() {
    let Some(lab) = Lab::require() else {
        return;
    };
    if !require_tools(&["openssl"]) {
        return;
    }
    let tls = "  tls: {certificate: DIR/server.crt, key: DIR/server.key}";
    let registry = Registry::configured(tls, "", make_certificates);
    let name = registry.name("busybox:1");
    copy_to_registry(&make_base("busybox"), "latest", &name, &[]);
    let context = Context::new(DOCKERFILE);
    let https = format!("https://{}", registry.host());
    let build = || lab.kiln.build(&context).base(&name);
    build().fails(1).says(&[registry.host()]);
    let ca = registry.path("ca.crt");
    // A loopback registry is plain HTTP unless it is said to be otherwise.
    build()
        .arg("--insecure-registry")
        .arg(&https)
        .arg("--ca-file")
        .arg(&ca)
        .ok()
        .ran(&[STEP]);
}

#[test]
fn base_of_a_local_image_is_fetched_from_where_it_is() {
    let Some(lab) = Lab::require() else {
        return;
    };
    // Nobody needs the files of the base, so that its blob stays where it is.
    let local = Context::new("ARG BASE\nFROM $BASE\nLABEL is=local\n");
    lab.build(&local).tag("local/app:1").ok();
    lab.kiln.run(["prune", "--force", "--all"]).succeeded();
    let other = Registry::start();
    let pushed = Context::new("FROM local/app:1\nLABEL is=pushed\n");
    let build = lab.kiln.build(&pushed).tag(&other.name("app:1"));
    build.arg("--push").ok();
    lab.kiln.run(["prune", "--force", "--all"]).succeeded();
    let upon = Context::new(&format!("FROM local/app:1\n{STEP}\n"));
    lab.kiln.build(&upon).ok().ran(&[STEP]);
    let upon = Context::new(DOCKERFILE);
    let pulled = Kiln::new();
    pulled.build(&upon).base(&other.name("app:1")).ok();
}
