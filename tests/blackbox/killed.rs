//! kill -9 at any time: the next build succeeds, gives the same image, and cleans up.

use std::time::Duration;

use crate::support::{
    Context, Flow, Lab, Proxy, assert_store_is_clean, assert_store_is_quiet, long_sleep, noise,
    pull_with_skopeo,
};

/// Asserts that the next build gives what one gives on a store that nothing happened to.
fn assert_recovers(lab: &Lab, context: &Context, marker: &str) {
    assert_store_is_quiet(&lab.kiln.root(), marker);
    let tree = lab.tree(context);
    assert_store_is_clean(&lab.kiln.root(), marker);
    let Some(undisturbed) = Lab::require() else {
        return;
    };
    assert_eq!(tree.difference(&undisturbed.tree(context)), "");
    assert_eq!(
        lab.image(context).n_layers(),
        undisturbed.image(context).n_layers()
    );
}

#[test]
fn during_a_pull() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let proxy = Proxy::before(lab.registry.host());
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN echo x > /x\n");
    let base = format!("{}/busybox:latest", proxy.host());
    proxy.hold_after(Flow::Down, 200_000);
    let build = lab.kiln.build(&context).base(&base).start();
    proxy.wait_until_held();
    build.kill();
    assert_store_is_quiet(&lab.kiln.root(), "echo x > /x");
    proxy.release();
    lab.kiln
        .build(&context)
        .base(&base)
        .ok()
        .ran(&["RUN echo x > /x"]);
    assert_recovers(&lab, &context, "echo x > /x");
}

#[test]
fn during_a_step() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let sleep = long_sleep();
    let context = Context::new(&format!(
        "ARG BASE\nFROM $BASE\nRUN echo first > /first\n\
         RUN echo half > /half; echo now; {sleep}; echo whole > /half\n"
    ));
    let mut build = lab.build(&context).start();
    build.wait_for(" now");
    build.kill();
    assert_store_is_quiet(&lab.kiln.root(), &sleep);
    context.edit(&sleep, "true");
    assert_recovers(&lab, &context, &sleep);
}

/// The same Dockerfile, so that what the killed build left could be taken for a result.
#[test]
fn step_that_was_killed_has_no_result() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let port = crate::support::free_port();
    let context = Context::new(&format!(
        "ARG BASE\nFROM $BASE\nRUN echo half > /state; echo now; \
         nc -w 60 127.0.0.1 {port} < /dev/null | cat; echo whole > /state\n"
    ));
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut build = lab.build(&context).start();
    build.wait_for(" now");
    build.kill();
    drop(listener);
    let tree = lab.tree(&context);
    assert!(
        tree.get("/state").contains("file 6"),
        "{}",
        tree.get("/state")
    );
    assert_store_is_clean(&lab.kiln.root(), "nc -w 60");
}

#[test]
fn around_a_layer_commit() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let context = Context::new(
        "ARG BASE\nFROM $BASE\nRUN mkdir /many; for n in $(seq 2000); do echo $n > /many/$n; done; \
         dd if=/dev/urandom of=/large bs=1M count=20 2> /dev/null; rm /large; echo written\n\
         RUN ls /many | wc -l > /n\n",
    );
    let mut was_killed_in_time = false;
    for wait_ms in [0, 5, 20, 60, 150] {
        let mut build = lab.build(&context).arg("--no-cache").start();
        build.wait_for(" written");
        std::thread::sleep(Duration::from_millis(wait_ms));
        was_killed_in_time |= !build.kill().status.success();
        assert_store_is_quiet(&lab.kiln.root(), "seq 2000");
    }
    assert!(was_killed_in_time);
    assert_recovers(&lab, &context, "seq 2000");
}

#[test]
fn during_a_push() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let proxy = Proxy::before(lab.registry.host());
    let context = Context::new("ARG BASE\nFROM $BASE\nCOPY noise /noise\nRUN echo x > /x\n");
    context.write("noise", noise(2 << 20));
    let (name, direct) = (
        format!("{}/app:1", proxy.host()),
        lab.registry.name("app:1"),
    );
    proxy.hold_after(Flow::Up, 600_000);
    let build = lab.build(&context).args(["--push", "-t", &name]).start();
    proxy.wait_until_held();
    build.kill();
    assert_store_is_quiet(&lab.kiln.root(), "echo x > /x");
    proxy.release();
    lab.build(&context).args(["--push", "-t", &name]).ok();
    assert_store_is_clean(&lab.kiln.root(), "echo x > /x");
    let dir = tempfile::tempdir().unwrap();
    let pushed = pull_with_skopeo(&direct, dir.path());
    assert_eq!(pushed.diff_ids(), lab.image(&context).diff_ids());
}
