//! The traps of the Dockerfile language from the fourteenth on; see `traps`.

use std::fs;
use std::path::Path;

use kiln_graph::Digest;
use serde_json::{Value, json};

use crate::support::{Context, Image, Lab, copy_to_registry, output};
use crate::traps::{image, tree};

fn on_busybox(dockerfile: &str) -> Context {
    Context::new(&format!("ARG BASE\nFROM $BASE\n{dockerfile}"))
}

/// Builds on busybox, and returns the text of a file of the image.
fn text_of(lab: &Lab, dockerfile: &str, file: &str) -> String {
    let dest = lab.kiln.out("files");
    lab.build(&on_busybox(dockerfile)).arg("-o").arg(&dest).ok();
    fs::read_to_string(dest.join(file)).unwrap()
}

/// Pushes busybox with another config; returns its name.
fn push_with_config(lab: &Lab, name: &str, edit: impl Fn(&mut Value)) -> String {
    let image = lab.image(&on_busybox("RUN echo base > /base\n"));
    let (mut config, mut manifest) = (image.config.clone(), image.manifest.clone());
    edit(&mut config);
    manifest["config"] = descriptor(image.dir(), &config, &manifest["config"]["mediaType"]);
    let mut index = json!({"schemaVersion": 2});
    let mut entry = descriptor(image.dir(), &manifest, &manifest["mediaType"]);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "image"});
    index["manifests"] = json!([entry]);
    fs::write(image.dir().join("index.json"), index.to_string()).unwrap();
    let name = lab.registry.name(name);
    copy_to_registry(image.dir(), "image", &name, &[]);
    name
}

fn descriptor(layout: &Path, value: &Value, media_type: &Value) -> Value {
    let bytes = value.to_string();
    let digest = Digest::sha256(&bytes).to_string();
    fs::write(layout.join("blobs").join(digest.replace(':', "/")), &bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

#[test]
fn trap_14_workdir_makes_folders_of_the_user() {
    let Some(lab) = Lab::require() else { return };
    let dockerfile = "RUN mkdir -m 711 /there\nUSER 5:6\nWORKDIR /there\nWORKDIR /a/b\nWORKDIR /\n";
    let tree = tree(&lab, dockerfile, &[]);
    assert_eq!(tree.get("/there"), "0711 0:0 dir");
    assert_eq!(
        (tree.get("/a"), tree.get("/a/b")),
        ("0755 5:6 dir", "0755 5:6 dir")
    );
    let image = image(&lab, dockerfile, &[]);
    let history = image.config["history"].as_array().unwrap();
    let is_empty = |at: usize| history[at]["empty_layer"] == true;
    assert!(!is_empty(4) && is_empty(5), "`WORKDIR /` makes no layer");
    assert!(!is_empty(3), "a directory that is there is a layer, too");
}

#[test]
fn trap_14_a_step_that_changes_nothing_is_an_empty_layer() {
    let Some(lab) = Lab::require() else { return };
    let context = on_busybox(
        "COPY f /there/\nWORKDIR /there\nRUN true\nCOPY f /there/\nCOPY none* /there/\nENV A=1\n",
    );
    context.write("f", "x");
    let image = lab.image_of(lab.build(&context));
    let history = image.config["history"].as_array().unwrap();
    let is_empty: Vec<bool> = history[history.len() - 6..]
        .iter()
        .map(|entry| entry["empty_layer"] == true)
        .collect();
    assert_eq!(is_empty, [false, false, false, false, false, true]);
    let diff_ids = image.config["rootfs"]["diff_ids"].as_array().unwrap();
    // Nothing is the same whatever made it.
    let last = &diff_ids[diff_ids.len() - 4..];
    assert!(last.iter().all(|id| *id == last[0]), "{last:?}");
    assert_ne!(diff_ids[diff_ids.len() - 5], last[0]);
}

#[test]
fn trap_15_names_have_supplementary_groups_and_numbers_have_none() {
    let Some(lab) = Lab::require() else { return };
    let groups = "RUN echo extra:x:77:www >> /etc/group\n";
    let ids = |user: &str| {
        let dockerfile = format!("{groups}USER {user}\nRUN id -G > /tmp/ids\n");
        text_of(&lab, &dockerfile, "tmp/ids").trim().to_owned()
    };
    assert!(ids("www").split(' ').any(|id| id == "77"));
    assert!(
        ids("1000").split(' ').any(|id| id == "77"),
        "a bare id is looked up"
    );
    assert_eq!(ids("1000:50"), "50");
    let home = |head: &str| {
        let dockerfile = format!("{head}\nRUN echo $HOME > /tmp/home\n");
        text_of(&lab, &dockerfile, "tmp/home").trim().to_owned()
    };
    let of_passwd = "RUN sed -i 's,^www:.*,www:x:1000:50::/of-www:/bin/sh,' /etc/passwd\nUSER www";
    assert_eq!(home(of_passwd), "/of-www");
    assert_eq!(home(&format!("{of_passwd}\nENV HOME=/set")), "/set");
    let unknown = on_busybox("USER nobody-knows-me\nRUN true\n");
    lab.build(&unknown)
        .fails(3)
        .says(&["nobody-knows-me", "Dockerfile:4"]);
    lab.build(&on_busybox("USER nobody-knows-me\n")).ok();
}

#[test]
fn trap_16_history_has_the_texts_of_buildkit() {
    let Some(lab) = Lab::require() else { return };
    let image = image(
        &lab,
        "ARG A=0\nARG A=1\nARG B\nENV k=v\nONBUILD RUN x\nRUN true\nCOPY f /f\nCMD [\"x\"]\nWORKDIR /x\nEXPOSE 80\nVOLUME /a\n\
         SHELL [\"/bin/sh\", \"-c\"]\nHEALTHCHECK --interval=5s CMD x\n",
        &[("f", "f")],
    );
    let expected = [
        "ARG A=0",
        "ARG A=1",
        "ARG B",
        "ENV k=v",
        "RUN |2 A=1 B= /bin/sh -c true # buildkit",
        "COPY f /f # buildkit",
        "CMD [\"x\"]",
        "WORKDIR /x",
        "EXPOSE [80/tcp]",
        "VOLUME [/a]",
        "SHELL [/bin/sh -c]",
        "HEALTHCHECK {Test:[CMD-SHELL x] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
    ];
    assert_eq!(image.history()[1..], expected);
    for row in &image.config["history"].as_array().unwrap()[1..] {
        assert_eq!(row["comment"], "buildkit.dockerfile.v0");
    }
}

#[test]
fn trap_17_an_image_is_as_old_as_its_last_step() {
    let Some(lab) = Lab::require() else { return };
    let context = on_busybox("RUN echo x > /x\nENV A=1\n");
    let image = lab.image_of(lab.build(&context));
    let history = &image.config["history"];
    assert_eq!(image.config["created"], history[2]["created"]);
    assert_eq!(history[1]["created"], history[2]["created"], "RUN and ENV");
    let of_base = history[0].clone();
    let build = lab
        .build(&context)
        .arg("--build-arg=SOURCE_DATE_EPOCH=1000000000");
    let image = lab.image_of(build);
    assert_eq!(image.config["created"], "2001-09-09T01:46:40Z");
    assert_eq!(
        image.config["history"][1]["created"],
        "2001-09-09T01:46:40Z"
    );
    assert_eq!(
        image.config["history"][0], of_base,
        "what was is not touched"
    );
}

#[test]
fn trap_18_unknown_fields_of_the_base_are_kept() {
    let Some(lab) = Lab::require() else { return };
    let base = push_with_config(&lab, "odd:1", |config| {
        config["x-vendor"] = json!({"a": [1]});
        config["config"]["X-Inner"] = json!("kept");
    });
    let context = on_busybox("ENV A=1\n");
    let image = lab.image_of(lab.kiln.build(&context).base(&base));
    assert_eq!(image.config["x-vendor"], json!({"a": [1]}));
    assert_eq!(image.config["config"]["X-Inner"], "kept");
}

#[test]
fn trap_19_a_base_of_another_platform_is_a_warning() {
    let Some(lab) = Lab::require() else { return };
    let context = on_busybox("ENV A=1\n");
    let archive = lab.kiln.out("image.tar");
    let build = lab.build(&context).arg("--platform=linux/s390x");
    let outcome = build.arg("-o").arg(output("oci", &archive)).ok();
    outcome.says(&["was pulled with platform", "linux/s390x"]);
    let image = Image::open_archive(&archive);
    assert_eq!(image.config["config"]["Env"][1], "A=1");
}

#[test]
fn trap_20_without_a_platform_an_image_keeps_that_of_its_base() {
    let Some(lab) = Lab::require() else { return };
    let base = push_with_config(&lab, "arm:1", |config| {
        config["architecture"] = json!("arm64");
    });
    let image = lab.image_of(lab.kiln.build(&on_busybox("ENV A=1\n")).base(&base));
    assert_eq!(image.config["architecture"], "arm64");
}

#[test]
fn trap_21_triggers_fire_once_and_are_not_inherited() {
    let Some(lab) = Lab::require() else { return };
    let base = lab.registry.name("trigger:1");
    let parent = on_busybox("ONBUILD RUN echo fired >> /fired\nONBUILD ENV FIRED=yes\n");
    lab.build(&parent).args(["--push", "-t", &base]).ok();
    let child = Context::new(&format!(
        "FROM {base} AS child\nRUN echo child >> /fired\nFROM child\nRUN echo grandchild >> /fired\n"
    ));
    let dest = lab.kiln.out("files");
    lab.build(&child).arg("-o").arg(&dest).ok();
    let fired = fs::read_to_string(dest.join("fired")).unwrap();
    assert_eq!(fired, "fired\nchild\ngrandchild\n");
    let image = lab.image(&child);
    assert_eq!(image.config["config"]["OnBuild"], Value::Null);
    assert_eq!(image.config["config"]["Env"][1], "FIRED=yes");
    // A stage of the same file fires as well.
    let same = Context::new(
        "ARG BASE\nFROM $BASE AS one\nONBUILD RUN echo fired > /fired\nFROM one\nRUN cat /fired\n",
    );
    lab.build(&same).ok();
}

#[test]
fn trap_22_secrets_are_in_no_name_layer_or_history() {
    let Some(lab) = Lab::require() else { return };
    const SECRET: &str = "do-not-tell-anyone";
    let context = on_busybox(
        "RUN --mount=type=secret,id=s,env=TOKEN test \"$TOKEN\" = do-not-tell-anyon\"e\" && env | wc -l > /n\n",
    );
    let file = lab.kiln.out("secret");
    fs::write(&file, SECRET).unwrap();
    let archive = lab.kiln.out("image.tar");
    let build = lab
        .build(&context)
        .arg(format!("--secret=id=s,src={}", file.display()));
    let outcome = build.arg("-o").arg(output("oci", &archive)).ok();
    assert!(!outcome.stderr.contains(SECRET), "{}", outcome.stderr);
    let image = Image::open_archive(&archive);
    assert!(!image.config.to_string().contains(SECRET));
    assert!(
        !image.config.to_string().contains("TOKEN="),
        "it is no variable of the image"
    );
    assert_eq!(image.layer(1), ["n"]);
}

#[test]
fn trap_23_mount_points_leave_nothing_behind() {
    let Some(lab) = Lab::require() else { return };
    let image = image(
        &lab,
        "RUN --mount=type=tmpfs,target=/mnt/deep/point --mount=target=/mnt/file,source=f echo x > /x\n",
        &[("f", "f")],
    );
    assert_eq!(
        image.layer(1),
        ["x"],
        "no mount point, no hosts, no resolv.conf"
    );
}

#[test]
fn trap_24_run_is_a_folder_like_others_and_dev_is_not() {
    let Some(lab) = Lab::require() else { return };
    let image = image(
        &lab,
        "RUN mkdir -p /run && echo x > /run/kept && (echo y > /dev/shm/gone || true) && echo z > /dev/null\n",
        &[],
    );
    assert_eq!(image.layer(1), ["run/", "run/kept"]);
}

#[test]
fn trap_25_mounts_are_sorted_and_relative_to_the_workdir() {
    let Some(lab) = Lab::require() else { return };
    let dockerfile = "WORKDIR /w\n\
        RUN --mount=type=bind,source=in/f,target=outer/inner --mount=type=tmpfs,target=/w/outer cat outer/inner > /seen\n";
    let context = on_busybox(dockerfile).with("in/f", "seen\n");
    let dest = lab.kiln.out("files");
    lab.build(&context).arg("-o").arg(&dest).ok();
    assert_eq!(fs::read_to_string(dest.join("seen")).unwrap(), "seen\n");
}

#[test]
fn trap_26_a_failed_step_says_what_failed_and_how() {
    let Some(lab) = Lab::require() else { return };
    let outcome = lab
        .build(&on_busybox("RUN echo before && exit 7\n"))
        .fails(3);
    outcome.says(&[
        "process \"/bin/sh -c echo before && exit 7\" did not complete successfully: exit code: 7",
        "Dockerfile:3",
    ]);
    let outcome = lab
        .build(&on_busybox("RUN [\"sh\", \"-c\", \"exit 8\"]\n"))
        .fails(3);
    outcome.says(&["process \"sh -c exit 8\" did not complete successfully: exit code: 8"]);
}
