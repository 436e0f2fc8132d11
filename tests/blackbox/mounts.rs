//! `RUN --mount`: what a step sees by it, what decides whether it runs again, and that nothing of
//! it is in the image.

use std::fs;

use crate::support::{Context, Lab, Tree, output};

/// Builds `dockerfile` and returns the files of its last stage.
fn files(lab: &Lab, context: &Context, args: &[&str]) -> Tree {
    let dest = lab.kiln.out("files");
    let _ignored = fs::remove_dir_all(&dest);
    lab.build(context)
        .args(args)
        .arg("-o")
        .arg(output("local", &dest))
        .ok();
    Tree::read(&dest)
}

/// Runs steps that write to `/out` and returns what is in it.
fn seen(lab: &Lab, context: &Context, args: &[&str]) -> String {
    let dest = lab.kiln.out("seen");
    lab.build(context)
        .args(args)
        .arg("-o")
        .arg(output("local", &dest))
        .ok();
    fs::read_to_string(dest.join("out")).unwrap()
}

/// A context with some files whose Dockerfile runs these steps and keeps `/out`.
fn context(steps: &str) -> Context {
    let head = "ARG BASE\nFROM $BASE AS other\nRUN mkdir /opt && echo other > /opt/file && chown 5:6 /opt\n";
    let tail = "FROM scratch\nCOPY --from=run /out /\n";
    let context = Context::new(&format!("{head}FROM $BASE AS run\n{steps}\n{tail}"))
        .with("folder/file", "content\n")
        .with("folder/sub/deep", "deep\n")
        .with("top", "top\n");
    context.chmod("folder/file", 0o754);
    context
}

fn for_both(test: impl Fn(&Lab)) {
    if let Some(lab) = Lab::require() {
        test(&lab);
    }
    if let Some(lab) = Lab::of_ordinary_user() {
        test(&lab);
    }
}

#[test]
fn bind_mounts_show_files_of_the_context_and_of_stages() {
    for_both(|lab| {
        let context = context(
            "WORKDIR /work\n\
             RUN --mount=source=folder,target=/a cat /a/file > /out; stat -c '%a %u' /a/file >> /out\n\
             RUN --mount=type=bind,src=/folder/sub/deep,dst=file cat /work/file >> /out\n\
             RUN --mount=from=other,source=opt,destination=/b cat /b/file >> /out; stat -c %u:%g /b >> /out\n\
             RUN --mount=target=. ls >> /out; ! touch new 2> /dev/null",
        );
        let expected = "content\n754 0\ndeep\nother\n5:6\nDockerfile\nfolder\ntop\n";
        assert_eq!(seen(lab, &context, &[]), expected);
    });
}

#[test]
fn what_is_written_to_a_bind_mount_is_thrown_away() {
    for_both(|lab| {
        let context = context(
            "RUN --mount=source=folder,target=/a,rw echo new > /a/new; rm /a/file; ls /a > /out\n\
             RUN --mount=source=folder,target=/a,readwrite=true ls /a >> /out\n\
             RUN --mount=from=other,source=/opt,target=/a,rw rm /a/file\n\
             RUN --mount=from=other,source=/opt,target=/a,ro=true ls /a >> /out\n\
             RUN --mount=type=bind,from=other,source=/opt,target=/a,readonly \
             touch /a/new 2> /dev/null || echo refused >> /out",
        );
        assert_eq!(
            seen(lab, &context, &[]),
            "new\nsub\nfile\nsub\nfile\nrefused\n"
        );
        assert_eq!(context.read("folder/file"), "content\n");
    });
}

#[test]
fn mounts_leave_nothing_in_the_image() {
    for_both(|lab| {
        let plain = Context::new("ARG BASE\nFROM $BASE\nRUN touch /etc/made /here\n");
        let mounted = Context::new(
            "ARG BASE\nFROM $BASE\n\
             RUN --mount=target=/new/deep/ctx --mount=source=Dockerfile,target=/etc/file \
             --mount=type=cache,target=/var/cache/x --mount=type=tmpfs,target=/tmp/y \
             touch /etc/made /here /var/cache/x/a /tmp/y/b\n",
        );
        let plain = files(lab, &plain, &[]);
        assert_eq!(files(lab, &mounted, &[]).difference(&plain), "");
    });
}

#[test]
fn a_bind_mount_decides_by_what_it_shows() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let of_folder = "RUN --mount=source=folder,target=/a cat /a/file > /out";
    let of_stage = "RUN --mount=from=other,source=/opt,target=/a cat /a/file >> /out";
    let context = context(&format!("{of_folder}\n{of_stage}"));
    lab.build(&context).ok();
    context.write("top", "changed\n");
    lab.build(&context).ok().ran(&[]);
    context.edit("mkdir /opt", "touch /beside && mkdir /opt");
    let other = "RUN touch /beside && mkdir /opt && echo other > /opt/file && chown 5:6 /opt";
    lab.build(&context).ok().ran(&[other]);
    context.chmod("folder/file", 0o644);
    lab.build(&context).ok().ran(&[of_folder]);
    context.write("folder/sub/deep", "changed\n");
    lab.build(&context).ok().ran(&[of_folder]);
}

#[test]
fn a_missing_source_is_told_with_its_line() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = context("RUN --mount=source=nothing,target=/a true");
    lab.build(&context)
        .fails(1)
        .says(&["`/nothing`: not found", "Dockerfile:5"]);
    let context = context_without_top();
    lab.build(&context)
        .fails(1)
        .says(&["`/top`: not found", "but line 1 of"]);
}

fn context_without_top() -> Context {
    context("RUN --mount=source=top,target=/a true").with(".dockerignore", "top\n")
}

#[test]
fn a_cache_mount_stays_from_build_to_build() {
    for_both(|lab| {
        let step = "RUN --mount=type=cache,target=/c echo . >> /c/log; wc -l < /c/log > /out";
        let context = context(step);
        assert_eq!(seen(lab, &context, &[]), "1\n");
        lab.build(&context).ok().ran(&[]);
        assert_eq!(seen(lab, &context, &["--no-cache"]), "2\n");
        context.edit("echo . >> /c/log;", "echo . >> /c/log; exit 3;");
        lab.build(&context).fails(3);
        context.edit("exit 3;", "true;");
        assert_eq!(seen(lab, &context, &[]), "4\n");
    });
}

#[test]
fn cache_mounts_have_names_owners_and_parts() {
    for_both(|lab| {
        let context = context(
            "ARG BUILDKIT_CACHE_MOUNT_NS\n\
             RUN --mount=type=cache,target=/c,id=one mkdir -p /c/sub; echo 1 > /c/sub/f\n\
             RUN --mount=type=cache,target=/d,id=one,source=sub,ro cat /d/f > /out; ! touch /d/x 2> /dev/null\n\
             RUN --mount=type=cache,target=/c,id=two ls /c >> /out\n\
             RUN --mount=type=cache,target=/c,id=one,mode=0750,uid=7,gid=8 stat -c '%a %u:%g' /c >> /out; ls /c >> /out\n\
             RUN --mount=type=cache,target=/c,from=other,source=/opt cat /c/file >> /out; echo mine > /c/file; stat -c %u:%g /c >> /out\n\
             RUN --mount=type=cache,target=/c,from=other,source=/opt cat /c/file >> /out\n\
             RUN --mount=from=other,source=/opt,target=/c cat /c/file >> /out",
        );
        let expected = "1\n750 7:8\nother\n5:6\nmine\nother\n";
        assert_eq!(seen(lab, &context, &[]), expected);
        let steps = "RUN --mount=type=cache,target=/c,id=one ls /c > /out";
        let context = self::context(steps);
        assert_eq!(seen(lab, &context, &[]), "sub\n");
        let args = ["--no-cache", "--build-arg=BUILDKIT_CACHE_MOUNT_NS=x"];
        assert_eq!(seen(lab, &context, &args), "");
    });
}

/// Two stages that run at once, for they wait for each other in a shared cache mount.
fn two_at_once(mount: &str, script: &str) -> Context {
    let stage = |own: &str, other: &str| {
        format!(
            "FROM $BASE AS {own}\n\
             RUN --mount=type=cache,id=meet,target=/meet --mount={mount} \
             touch /meet/{own} /c/{own}; \
             timeout 60 sh -c 'until [ -e /meet/{other} ]; do sleep 0.05; done'; {script} > /{own}\n"
        )
    };
    let (one, two) = (stage("one", "two"), stage("two", "one"));
    let tail = "FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    Context::new(&format!("ARG BASE\n{one}{two}{tail}"))
}

#[test]
fn shared_caches_are_used_together_and_private_ones_alone() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let said = |name: &str, mount: &str| {
        let dest = lab.kiln.out(name);
        lab.build(&two_at_once(mount, "sleep 0.2; ls /c"))
            .arg("--no-cache")
            .arg("-o")
            .arg(output("local", &dest))
            .ok();
        ["one", "two"].map(|name| fs::read_to_string(dest.join(name)).unwrap())
    };
    assert_eq!(
        said("together", "type=cache,target=/c,id=a,sharing=shared"),
        ["one\ntwo\n", "one\ntwo\n"]
    );
    // Marks of the first build would let the second one's stages pass each other by.
    let meet = Context::new(
        "ARG BASE\nFROM $BASE\nRUN --mount=type=cache,id=meet,target=/meet rm /meet/*\n",
    );
    lab.build(&meet).ok();
    assert_eq!(
        said("alone", "type=cache,target=/c,id=b,sharing=private"),
        ["one\n", "two\n"]
    );
}

#[test]
fn locked_caches_are_used_by_one_step_at_a_time() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let stage = |name: &str| {
        format!(
            "FROM $BASE AS {name}\n\
             RUN --mount=type=cache,target=/c,sharing=locked mkdir /c/used && sleep 0.5 && rmdir /c/used; echo $? > /{name}\n"
        )
    };
    let stages: String = ["one", "two", "three"].map(stage).concat();
    let copies = "FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\nCOPY --from=three /three /\n";
    let context = Context::new(&format!("ARG BASE\n{stages}{copies}"));
    let dest = lab.kiln.out("locked");
    let outcome = lab
        .build(&context)
        .arg("-o")
        .arg(output("local", &dest))
        .ok();
    for name in ["one", "two", "three"] {
        assert_eq!(fs::read_to_string(dest.join(name)).unwrap(), "0\n");
    }
    outcome.says(&["waiting for another step that uses the cache mount `c`"]);
}

#[test]
fn a_killed_build_leaves_its_cache_free() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let mount = "--mount=type=cache,target=/c,sharing=locked";
    let holder = Context::new(&format!(
        "ARG BASE\nFROM $BASE\nRUN {mount} touch /c/mine; echo has' 'it; sleep 600\n"
    ));
    let mut running = lab.build(&holder).start();
    running.wait_for("has it");
    running.kill();
    let next = context(&format!("RUN {mount} ls /c > /out"));
    assert_eq!(seen(&lab, &next, &[]), "mine\n");
}

#[test]
fn a_tmpfs_is_empty_has_a_size_and_covers_what_is_below() {
    for_both(|lab| {
        let context = context(
            "RUN mkdir /t && touch /t/below\n\
             RUN --mount=type=tmpfs,target=/t,size=1m ls /t > /out; stat -c %a /t >> /out; \
             dd if=/dev/zero of=/t/f bs=1k count=2000 2> /dev/null || echo full >> /out\n\
             RUN --mount=type=tmpfs,target=/t,readonly ! touch /t/x 2> /dev/null\n\
             RUN ls /t >> /out",
        );
        assert_eq!(seen(lab, &context, &[]), "1777\nfull\nbelow\n");
    });
}

#[test]
fn variables_are_expanded_in_mounts_and_not_shown_in_the_history() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nENV DIR=/x\n\
         RUN --mount=type=${TYPE:-tmpfs},target=$DIR/y touch $DIR/y/z\n",
    );
    let image = lab.image(&context);
    let history = serde_json::to_string(&image.config["history"]).unwrap();
    assert!(history.contains("touch $DIR/y/z"), "{history}");
    assert!(!history.contains("--mount"), "{history}");
}

#[test]
fn insecure_steps_need_leave_and_are_not_root_of_the_host() {
    for_both(|lab| {
        let context = context(
            "RUN --security=insecure grep -E '^(CapEff|Seccomp):' /proc/self/status > /out; \
             mount -t tmpfs none /mnt && echo mounted >> /out; \
             mknod /disk b 8 0 2> /dev/null || echo no device >> /out",
        );
        context.edit("RUN --security", "RUN mkdir -p /mnt\nRUN --security");
        lab.build(&context)
            .fails(1)
            .says(&["`security.insecure`", "--allow security.insecure"]);
        let out = seen(lab, &context, &["--allow=security.insecure"]);
        assert!(out.contains("Seccomp:\t0"), "{out}");
        assert!(!out.contains("00000000a80425fb"), "{out}");
        assert!(out.ends_with("mounted\nno device\n"), "{out}");
    });
}

#[test]
fn the_hosts_network_needs_leave() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = context("RUN --network=host true > /out");
    lab.build(&context).fails(1).says(&["`network.host`"]);
    lab.build(&context).arg("--network=host").ok();
    lab.build(&context)
        .args(["--allow", "security.insecure,network.host"])
        .ok();
}
