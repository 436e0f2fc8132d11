//! Device nodes: made by steps, kept in layers, written to images, useful to no step.

use std::fs;

use crate::support::{Context, Image, Lab, output};

const DOCKERFILE: &str = "ARG BASE
FROM $BASE AS make
RUN <<'EOF'
set -e
mkdir -p /d/sub && cd /d
mknod null c 1 3
mknod -m 600 sub/disk b 8 1
mknod sub/../zero c 1 5
mknod gone c 1 1 && rm gone
mkfifo -m 622 pipe
chmod 640 null && chown 3:4 null && mv zero sub/moved && chown :5 sub/moved
ln null sub/null && ln sub/disk disk
for device in null sub/disk; do
    if mknod $device c 1 3 2> /err; then exit 1; fi
    grep -q 'File exists' /err
done
echo lost > null
if head -c 1 sub/disk 2> /err; then exit 1; fi
if mknod whiteout c 0 0 2> /err; then exit 1; fi
rm /err
EOF
RUN <<'EOF'
set -e
cd /d
test -c null && test -b disk && test -p pipe
stat -c '%n %t:%T %h' null sub/null sub/disk sub/moved > /seen
for device in null disk sub/moved; do
    if cat $device 2> /dev/null; then exit 1; fi
done
mkdir /copy && cp -a null sub/moved /copy
rm sub/disk
EOF
USER www
RUN if mknod /tmp/mine c 1 3; then exit 1; fi; test ! -e /tmp/mine && mkfifo /tmp/pipe
";

#[test]
fn devices_of_steps_are_in_the_image() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let tree = lab.tree(&Context::new(DOCKERFILE));
    for (path, what) in [
        ("/d/null", "0640 3:4 char 1:3"),
        ("/d/sub/null", "0640 3:4 char 1:3"),
        ("/d/sub/moved", "0644 0:5 char 1:5"),
        ("/d/disk", "0600 0:0 block 8:1"),
        ("/copy/null", "0640 3:4 char 1:3"),
        ("/copy/moved", "0644 0:5 char 1:5"),
        ("/d/pipe", "0622 0:0 fifo"),
    ] {
        assert_eq!(tree.get(path), what, "{path}");
    }
    for path in [
        "/d/sub/disk",
        "/d/gone",
        "/d/zero",
        "/d/whiteout",
        "/tmp/mine",
    ] {
        assert_eq!(tree.get(path), "", "{path}");
    }
}

#[test]
fn later_steps_see_devices_with_their_numbers() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dockerfile = format!("{DOCKERFILE}FROM scratch\nCOPY --from=make /seen /\n");
    let (context, dest) = (Context::new(&dockerfile), lab.kiln.out("seen"));
    lab.build(&context)
        .arg("-o")
        .arg(output("local", &dest))
        .ok();
    assert_eq!(
        fs::read_to_string(dest.join("seen")).unwrap(),
        "null 1:3 2\nsub/null 1:3 2\nsub/disk 8:1 2\nsub/moved 1:5 1\n"
    );
}

#[test]
fn devices_are_copied_between_stages() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let dockerfile = format!(
        "{DOCKERFILE}FROM scratch\nCOPY --from=make /d /d\n\
         COPY --from=make --chown=7:8 /d/null /x/\n"
    );
    let tree = lab.tree(&Context::new(&dockerfile));
    assert_eq!(tree.get("/d/null"), "0640 3:4 char 1:3");
    assert_eq!(tree.get("/x/null"), "0640 7:8 char 1:3");
    // As BuildKit copies block devices.
    assert_eq!(tree.get("/d/disk"), "0600 0:0 char 8:1");
}

#[test]
fn devices_are_the_same_from_the_cache() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(DOCKERFILE);
    let first = lab.image(&context);
    let archive = lab.kiln.out("again.tar");
    let build = lab.build(&context).arg("-o").arg(output("oci", &archive));
    build.ok().ran(&[]);
    assert_eq!(first.manifest, Image::open_archive(&archive).manifest);
}

#[test]
fn ordinary_users_make_no_devices() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\n\
         RUN if mknod /x c 1 3 || mknod /y b 8 0; then exit 1; fi; mkfifo /p\n",
    );
    let tree = lab.tree(&context);
    assert!(tree.get("/p").contains("fifo"));
    assert_eq!((tree.get("/x"), tree.get("/y")), ("", ""));
}
