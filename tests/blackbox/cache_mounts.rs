//! `kiln cache mounts`: folders of cache mounts, listed, removed, and moved to another store.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Context, Kiln, Lab, command, long_sleep, noise, run, text};

const FILL: &str = "mkdir /c/bin; echo one > /c/bin/tool; chown 7:8 /c/bin/tool; \
    chmod 4755 /c/bin/tool; ln /c/bin/tool /c/z; ln -s bin/tool /c/link; \
    touch -d '2001-02-03 04:05:06' /c/bin/tool /c/bin";
const SHOW: &str = "cat /c/z; stat -c '%a %u:%g %h %Y' /c/bin/tool; readlink /c/link; \
    stat -c %Y /c/bin";

fn mounting(script: &str) -> Context {
    Context::new(&format!(
        "ARG BASE\nFROM $BASE\nRUN --mount=type=cache,id=c,target=/c {script}\n"
    ))
}

/// Returns a lab whose cache mount `c` was filled.
fn filled(script: &str) -> Option<Lab> {
    let lab = Lab::require()?;
    lab.build(&mounting(script)).ok();
    Some(lab)
}

fn mounts<const N: usize>(args: [&str; N]) -> Vec<&str> {
    [&["cache", "mounts"], &args[..]].concat()
}

fn rows(kiln: &Kiln) -> Vec<Value> {
    let listed = kiln.run(mounts(["ls", "--format=json"])).succeeded();
    serde_json::from_slice(&listed.stdout).unwrap()
}

/// Returns the folder of the only cache mount.
fn fs_dir(kiln: &Kiln) -> PathBuf {
    let rows = rows(kiln);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let name = rows[0]["name"].as_str().unwrap();
    kiln.root().join("mounts").join(name).join("0/fs")
}

fn output_of(lab: &Lab, kiln: &Kiln, script: &str) -> String {
    let out = kiln.out("shown");
    let context = Context::new(&format!(
        "ARG BASE\nFROM $BASE AS run\n\
         RUN --mount=type=cache,id=c,target=/c ({script}) > /shown\n\
         FROM scratch\nCOPY --from=run /shown /\n"
    ));
    let build = kiln.build(&context).base(&lab.busybox());
    build.arg("-o").arg(&out).ok();
    fs::read_to_string(out.join("shown")).unwrap()
}

#[test]
fn mounts_are_listed() {
    let Some(lab) = filled("echo x > /c/f") else {
        return;
    };
    let rows = rows(&lab.kiln);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["id"], &rows[0]["number"]),
        (&"c".into(), &0.into())
    );
    assert_eq!(rows[0]["in_use"], false);
    assert!(rows[0]["size"].as_u64() > Some(4096), "{rows:?}");
    let shown = text(&lab.kiln.run(mounts(["ls"])).succeeded().stdout);
    let name = &rows[0]["name"].as_str().unwrap()[..12];
    assert!(shown.contains(&format!("c   {name}/0")), "{shown}");
}

#[test]
fn an_exported_mount_is_found_by_the_next_build_elsewhere() {
    let Some(lab) = filled(FILL) else {
        return;
    };
    let expected = output_of(&lab, &lab.kiln, SHOW);
    assert!(
        expected.contains("one\n4755 7:8 2 981173106\nbin/tool\n981173106"),
        "{expected}"
    );
    let dir = lab.kiln.out("exported");
    let name = lab.registry.name("caches/c");
    for (number, place) in [
        dir.display().to_string(),
        format!("{}.tar", dir.display()),
        format!("type=registry,ref={name}"),
    ]
    .iter()
    .enumerate()
    {
        lab.kiln
            .run(mounts(["export", "c", "--to", place]))
            .succeeded()
            .says(&["exported cache mount `c`"]);
        let other = Kiln::new();
        // What was there before is replaced.
        if number == 1 {
            let context = mounting("touch /c/old");
            other.build(&context).base(&lab.busybox()).ok();
        }
        other
            .run(mounts(["import", "--from", place]))
            .succeeded()
            .says(&["imported cache mount `c`"]);
        assert_eq!(output_of(&lab, &other, SHOW), expected, "{place}");
        assert_eq!(
            output_of(&lab, &other, "ls /c"),
            "bin\nlink\nz\n",
            "{place}"
        );
        assert_eq!(fs::read_dir(other.root().join("tmp")).unwrap().count(), 1);
    }
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let Some(lab) = filled("echo x > /c/f") else {
        return;
    };
    let time = |kiln: &Kiln| {
        let found = fs::metadata(fs_dir(kiln).join("f")).unwrap();
        (found.mtime(), found.mtime_nsec())
    };
    let tar = lab.kiln.out("c.tar");
    let place = tar.to_str().unwrap();
    lab.kiln
        .run(mounts(["export", "c", "--to", place]))
        .succeeded();
    let other = Kiln::new();
    other.run(mounts(["import", "--from", place])).succeeded();
    assert_eq!(time(&other), time(&lab.kiln));
}

#[test]
fn what_did_not_change_is_not_sent_or_written_again() {
    let Some(lab) = filled("true") else {
        return;
    };
    let dir = fs_dir(&lab.kiln);
    for name in ["a", "b", "c"] {
        fs::write(dir.join(name), noise(9 << 20)).unwrap();
    }
    fs::write(dir.join("small"), "1").unwrap();
    let to_registry = format!("type=registry,ref={}", lab.registry.name("c:1"));
    let to_dir = lab.kiln.out("exported");
    let export = |place: &str| {
        lab.kiln
            .run(mounts(["export", "c", "--to", place]))
            .succeeded()
    };
    let to_dir = to_dir.to_str().unwrap();
    // The same bytes three times, under other names.
    export(&to_registry).says(&["5 of 5 layers sent"]);
    export(&to_registry).says(&["0 of 5 layers sent, 0B of"]);
    export(to_dir).says(&["4 files written"]);
    fs::write(dir.join("small"), "2").unwrap();
    export(&to_registry).says(&["1 of 5 layers sent"]);
    export(to_dir).says(&["1 files written (1B), 3 unchanged"]);
    fs::remove_file(dir.join("small")).unwrap();
    export(to_dir).says(&["0 files written (0B), 3 unchanged"]);
    assert!(!PathBuf::from(to_dir).join("fs/small").exists());
    let sent = export(&to_registry);
    // The folder itself has another time.
    sent.says(&["1 of 4 layers sent"]);
    assert!(text(&sent.stdout).starts_with("sha256:"));
}

#[test]
fn mounts_are_removed_by_id_or_all_together() {
    let Some(lab) = filled("true") else {
        return;
    };
    let other = "ARG BASE\nFROM $BASE\nRUN --mount=type=cache,id=other,target=/c echo other\n";
    lab.build(&Context::new(other)).ok();
    let unknown = lab.kiln.run(mounts(["rm", "c", "gone"]));
    assert_eq!(unknown.status.code(), Some(1));
    unknown.says(&["no cache mount `gone`", "hint: `kiln cache mounts ls`"]);
    assert_eq!(rows(&lab.kiln).len(), 2);
    lab.kiln.run(mounts(["rm", "c"])).succeeded();
    assert_eq!(rows(&lab.kiln)[0]["id"], "other");
    lab.kiln.run(mounts(["rm", "--all"])).succeeded();
    assert!(rows(&lab.kiln).is_empty());
    assert_eq!(lab.kiln.run(mounts(["rm"])).status.code(), Some(2));
}

#[test]
fn what_a_build_uses_stays_as_it_is() {
    let Some(lab) = filled("echo x > /c/f") else {
        return;
    };
    let free = "ARG BASE\nFROM $BASE\nRUN --mount=type=cache,id=free,target=/c true\n";
    lab.build(&Context::new(free)).ok();
    let tar = lab.kiln.out("c.tar");
    let place = tar.to_str().unwrap();
    lab.kiln
        .run(mounts(["export", "c", "--to", place]))
        .succeeded();
    let context = mounting(&format!("echo begun; {}", long_sleep()));
    let mut build = lab.build(&context).start();
    build.wait_for(" begun");
    for args in [
        &mounts(["rm", "c", "free"])[..],
        &mounts(["export", "c", "--to", place]),
        &mounts(["import", "--from", place]),
    ] {
        let outcome = lab.kiln.run(args);
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
        outcome.says(&["in use", "`c`", "hint: try again"]);
    }
    let rows = rows(&lab.kiln);
    assert_eq!(rows.len(), 1, "the other one is gone: {rows:?}");
    assert_eq!(
        (&rows[0]["id"], &rows[0]["in_use"]),
        (&"c".into(), &true.into())
    );
    assert!(fs_dir(&lab.kiln).join("f").exists());
}

#[test]
fn hostile_archives_write_nothing_outside() {
    let Some(lab) = filled("echo mine > /c/f") else {
        return;
    };
    let dir = lab.kiln.out("hostile");
    let place = dir.to_str().unwrap();
    lab.kiln
        .run(mounts(["export", "c", "--to", place]))
        .succeeded();
    let json = dir.join("mount.json");
    // Says nothing of how many entries there are.
    let mut info: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    info.as_object_mut().unwrap().remove("entries");
    fs::write(&json, info.to_string()).unwrap();
    let outside = lab.kiln.out("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    symlink(&outside, dir.join("fs/way")).unwrap();
    fs::write(dir.join("evil"), "evil").unwrap();
    let tar = lab.kiln.out("hostile.tar");
    let transform = |rule: &str| format!("--transform=flags=rSH;{rule}");
    for (rule, why) in [
        ("s,^evil$,fs/../../../../x,", "leads out"),
        ("s,^evil$,../x,", "leads out"),
        ("s,^evil$,fs/way/x,", "through a link"),
        ("s,^evil$,/tmp/kiln-evil,", "absolute"),
    ] {
        let mut program = command("tar");
        program.arg("-P").arg("-C").arg(&dir).arg("-cf").arg(&tar);
        program
            .arg(transform(rule))
            .args(["mount.json", "fs", "evil"]);
        run(&mut program);
        let outcome = lab
            .kiln
            .run(mounts(["import", "--from", tar.to_str().unwrap()]));
        assert_eq!(outcome.status.code(), Some(1), "{rule}: {}", outcome.stderr);
        outcome.says(&[why]);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!PathBuf::from("/tmp/kiln-evil").exists());
    let mine = fs_dir(&lab.kiln);
    assert_eq!(fs::read_to_string(mine.join("f")).unwrap(), "mine\n");
    assert!(
        !mine.join("way").exists(),
        "half of an archive was imported"
    );
}

#[test]
fn archives_go_through_pipes() {
    let Some(lab) = filled("echo x > /c/f") else {
        return;
    };
    let other = Kiln::new();
    let tar = lab.kiln.out("piped");
    let exported = lab
        .kiln
        .run(mounts(["export", "c", "--to", "-"]))
        .succeeded();
    fs::write(&tar, exported.stdout).unwrap();
    let mut import = other.command();
    import.args(mounts(["import", "--from", "-"]));
    run(import.stdin(fs::File::open(&tar).unwrap()));
    assert!(fs_dir(&other).join("f").exists());
}

#[test]
fn an_import_that_is_killed_changes_nothing() {
    let Some(lab) = filled("echo new > /c/f; dd if=/dev/zero of=/c/large bs=1M count=4") else {
        return;
    };
    let tar = lab
        .kiln
        .run(mounts(["export", "c", "--to", "-"]))
        .succeeded()
        .stdout;
    fs::write(fs_dir(&lab.kiln).join("f"), "old").unwrap();
    let mut import = lab.kiln.command();
    import.args(mounts(["import", "--from", "-"]));
    let mut child = import.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&tar[..tar.len() / 2]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let folder = fs_dir(&lab.kiln);
    assert_eq!(fs::read_to_string(folder.join("f")).unwrap(), "old");
    assert_eq!(rows(&lab.kiln)[0]["in_use"], false);
    let tmp = lab.kiln.root().join("tmp");
    assert_eq!(fs::read_dir(tmp).unwrap().count(), 1, "leftovers");
}

#[test]
fn owners_are_those_of_the_image_whoever_runs_kiln() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    lab.build(&mounting(FILL)).ok();
    let tar = lab
        .kiln
        .run(mounts(["export", "c", "--to", "-"]))
        .succeeded()
        .stdout;
    let other = Kiln::new();
    let path = other.out("c.tar");
    fs::write(&path, tar).unwrap();
    let place = path.to_str().unwrap();
    other.run(mounts(["import", "--from", place])).succeeded();
    let shown = output_of(&lab, &other, SHOW);
    assert!(shown.contains("4755 7:8 2 981173106"), "{shown}");
    let exported = other.run(mounts(["export", "c", "--to", "-"])).succeeded();
    let back = lab.kiln.out("back.tar");
    fs::write(&back, exported.stdout).unwrap();
    let back = back.to_str().unwrap();
    lab.kiln.run(mounts(["import", "--from", back])).succeeded();
    assert_eq!(output_of(&lab, &lab.kiln, SHOW), shown);
}

#[test]
fn mistakes_say_what_to_do() {
    let Some(lab) = filled("true") else {
        return;
    };
    for (args, code, says) in [
        (["export", "gone", "--to", "x"], 1, "no cache mount `gone`"),
        (
            ["export", "c", "--to", "type=oci,dest=x"],
            2,
            "known are: local",
        ),
        (
            ["import", "--from", "type=local", "--ca-file=x"],
            2,
            "needs `dest=`",
        ),
        (["import", "--from", "/", "--ca-file=x"], 1, "mount.json"),
    ] {
        let outcome = lab.kiln.run(mounts(args));
        assert_eq!(outcome.status.code(), Some(code), "{}", outcome.stderr);
        outcome.says(&[says]);
    }
    let place = format!("type=registry,ref={}", lab.busybox());
    let outcome = lab.kiln.run(mounts(["import", "--from", &place]));
    assert_eq!(outcome.status.code(), Some(1));
    outcome.says(&["is not a cache mount"]);
}
