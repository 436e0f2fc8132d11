//! Where results go: files, folders, standard output, registries, and the files about them.

use std::fs;

use serde_json::Value;

use crate::support::{
    Context, Image, Lab, command, list_tar, output, pull_with_skopeo, require_tools, run, text,
};

const DOCKERFILE: &str = "ARG BASE
FROM $BASE AS all
RUN echo made > /made; ln /made /linked; ln -s made /soft; chmod 4755 /made
FROM scratch
COPY --from=all /made /linked /soft /dir/
CMD [\"/dir/made\"]
";

#[test]
fn oci_archive_is_read_by_skopeo_and_umoci() {
    let Some(lab) = Lab::require() else {
        return;
    };
    if !require_tools(&["umoci"]) {
        return;
    }
    let archive = lab.kiln.out("image.tar");
    let context = Context::new(DOCKERFILE);
    let build = lab.build(&context).args(["-t", "app:7"]);
    build.arg("-o").arg(output("oci", &archive)).ok();
    let image = Image::open_archive(&archive);
    assert_eq!(image.n_layers(), 1);
    let reference = format!("oci-archive:{}", archive.display());
    let seen = run(command("skopeo").args(["inspect", "--config", &reference]));
    let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(seen["config"]["Cmd"][0], "/dir/made");
    let listed = run(command("umoci")
        .arg("list")
        .arg("--layout")
        .arg(image.dir()));
    assert!(
        text(&listed.stdout).contains('7'),
        "{}",
        text(&listed.stdout)
    );
}

#[test]
fn oci_layout_can_be_a_folder() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dir = lab.kiln.out("layout");
    let spec = output("oci", &dir) + ",tar=false";
    lab.build(&Context::new(DOCKERFILE))
        .arg("-o")
        .arg(spec)
        .ok();
    assert_eq!(Image::open(&dir).n_layers(), 1);
}

#[test]
fn docker_archive_is_read_by_skopeo() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let archive = lab.kiln.out("docker.tar");
    let context = Context::new(DOCKERFILE);
    let build = lab.build(&context).args(["-t", "app:7"]);
    build.arg("-o").arg(output("docker", &archive)).ok();
    let reference = format!("docker-archive:{}:app:7", archive.display());
    let seen = run(command("skopeo").args(["inspect", "--config", &reference]));
    let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!(seen["config"]["Cmd"][0], "/dir/made");
    assert!(list_tar(&archive).contains(&"manifest.json".to_owned()));
}

#[test]
fn tar_and_local_hold_the_same_files() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let (archive, dir) = (lab.kiln.out("files.tar"), lab.kiln.out("files"));
    let context = Context::new(DOCKERFILE);
    let build = lab.build(&context);
    build
        .arg("-o")
        .arg(output("tar", &archive))
        .arg("-o")
        .arg(output("local", &dir))
        .ok();
    let names = list_tar(&archive);
    let files: Vec<_> = names.iter().filter(|name| !name.ends_with('/')).collect();
    assert_eq!(files, ["dir/linked", "dir/made", "dir/soft"]);
    for name in ["linked", "made"] {
        assert_eq!(
            fs::read_to_string(dir.join("dir").join(name)).unwrap(),
            "made\n"
        );
    }
    let target = fs::read_link(dir.join("dir/soft"));
    // COPY follows a link that it is told to copy, as docker build does.
    assert!(target.is_err() || target.unwrap().to_str() == Some("made"));
}

#[test]
fn dash_is_standard_output() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(DOCKERFILE);
    for spec in [
        "type=tar,dest=-",
        "type=oci,dest=-",
        "type=docker,dest=-",
        "-",
    ] {
        let outcome = lab.build(&context).args(["-o", spec]).ok();
        let file = lab.kiln.out("stdout.tar");
        fs::write(&file, &outcome.stdout).unwrap();
        assert!(!list_tar(&file).is_empty(), "{spec}");
        assert!(
            outcome.stderr.contains("#1 "),
            "progress goes to the other stream"
        );
    }
}

#[test]
fn same_build_gives_the_same_bytes() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(DOCKERFILE);
    let bytes = |spec: &str| lab.build(&context).args(["-o", spec]).ok().stdout;
    for spec in ["type=tar,dest=-", "type=oci,dest=-", "type=docker,dest=-"] {
        assert!(bytes(spec) == bytes(spec), "{spec}");
    }
}

#[test]
fn files_about_the_image_agree_with_it() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let (id_file, metadata_file) = (lab.kiln.out("id"), lab.kiln.out("metadata.json"));
    let names = [lab.registry.name("app:1"), lab.registry.name("app:2")];
    let context = Context::new(DOCKERFILE);
    let build = lab.build(&context).arg("--push");
    let build = build.args(["-t", &names[0], "-t", &names[1]]);
    let build = build.arg("--iidfile").arg(&id_file);
    build.arg("--metadata-file").arg(&metadata_file).ok();
    let metadata: Value = serde_json::from_slice(&fs::read(&metadata_file).unwrap()).unwrap();
    let id = fs::read_to_string(&id_file).unwrap();
    for name in &names {
        let dir = tempfile::tempdir().unwrap();
        let pulled = pull_with_skopeo(name, dir.path());
        assert_eq!(metadata["containerimage.digest"], pulled.digest());
        assert_eq!(metadata["containerimage.config.digest"], pulled.id());
        assert_eq!(
            metadata["containerimage.descriptor"]["digest"],
            pulled.digest()
        );
        assert_eq!(id, pulled.id());
    }
    assert_eq!(metadata["image.name"], names.join(","));
}

#[test]
fn several_outputs_of_one_build() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let (archive, dir) = (lab.kiln.out("image.tar"), lab.kiln.out("files"));
    let name = lab.registry.name("app:1");
    let context = Context::new(DOCKERFILE);
    let build = lab.build(&context).args(["-t", &name]);
    let build = build.arg("-o").arg(output("oci", &archive));
    let build = build
        .arg("-o")
        .arg(output("local", &dir))
        .args(["-o", "type=registry"]);
    build.ok();
    let pulled = tempfile::tempdir().unwrap();
    let pulled = pull_with_skopeo(&name, pulled.path());
    assert_eq!(Image::open_archive(&archive).digest(), pulled.digest());
    assert!(dir.join("dir/made").is_file());
}

#[test]
fn push_sends_layers_of_the_base_as_they_came() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let base = pull_with_skopeo(&lab.busybox(), dirs[0].path());
    let name = lab.registry.name("team/app:1");
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo x > /x\n");
    lab.build(&context).args(["--push", "-t", &name]).ok();
    let pushed = pull_with_skopeo(&name, dirs[1].path());
    assert_eq!(pushed.layer_digest(0), base.layer_digest(0));
    assert_eq!(pushed.n_layers(), 2);
}

#[test]
fn push_to_another_registry_brings_the_base_along() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let other = crate::support::Registry::start();
    let name = other.name("app:1");
    // Only metadata: nobody needs the files of the base before the push does.
    let context = Context::new("ARG BASE\nFROM $BASE\nLABEL a=b\n");
    lab.build(&context).args(["--push", "-t", &name]).ok();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(pull_with_skopeo(&name, dir.path()).n_layers(), 1);
    let outcome = lab.build(&context).args(["--push", "-t", &name]).ok();
    outcome.ran(&[]);
    other.forget();
    lab.build(&context).args(["--push", "-t", &name]).ok();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(pull_with_skopeo(&name, dir.path()).n_layers(), 1);
}

#[test]
fn layers_can_be_zstd_or_plain() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    for (compression, ending) in [
        ("zstd", "tar+zstd"),
        ("uncompressed", ".tar"),
        ("gzip", "tar+gzip"),
    ] {
        let archive = lab.kiln.out(compression);
        let spec = format!("{},compression={compression}", output("oci", &archive));
        lab.kiln.build(&context).args(["-o", &spec]).ok();
        let image = Image::open_archive(&archive);
        let media_type = image.manifest["layers"][0]["mediaType"].as_str().unwrap();
        assert!(media_type.ends_with(ending), "{media_type}");
        assert_eq!(image.layer(0), ["Dockerfile"]);
    }
}

#[test]
fn local_leaves_other_files_alone() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dest = lab.kiln.out("files");
    fs::create_dir(&dest).unwrap();
    fs::write(dest.join("mine"), "mine").unwrap();
    fs::write(dest.join("Dockerfile"), "old").unwrap();
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    lab.kiln.build(&context).arg("-o").arg(&dest).ok();
    assert_eq!(fs::read_to_string(dest.join("mine")).unwrap(), "mine");
    assert_eq!(
        fs::read_to_string(dest.join("Dockerfile")).unwrap(),
        context.read("Dockerfile")
    );
}

#[test]
fn build_without_a_result_is_still_a_build() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo x > /x\n");
    lab.build(&context).ok().ran(&["RUN echo x > /x"]);
    lab.build(&context).tag("app").ok().ran(&[]);
}

#[test]
fn push_without_a_name_is_an_error() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    let outcome = lab.kiln.build(&context).arg("--push").run();
    assert!(!outcome.status.success());
    outcome.says(&["--tag"]);
}
