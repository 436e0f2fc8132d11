//! Ctrl-C and SIGTERM: the build ends at once and leaves nothing behind.

use rustix::process::Signal;

use crate::support::{Context, Flow, Lab, Proxy, assert_store_is_clean, long_sleep};

/// Sends a signal to a build in the middle of a step that ignores it, and that has processes in the
/// background and in a session of their own.
fn interrupt(lab: &Lab, signal: Signal) {
    let sleep = long_sleep();
    let stubborn = format!(
        "ARG BASE\nFROM $BASE\n\
         RUN trap '' INT TERM; setsid {sleep} & {sleep} & echo now; {sleep}; wait\n"
    );
    let context = Context::new(&stubborn);
    let mut build = lab.build(&context).start();
    build.wait_for(" now");
    build.signal(signal);
    let outcome = build.wait();
    let code = outcome.status.code();
    assert_eq!(code, Some(128 + signal.as_raw()), "{}", outcome.stderr);
    assert_store_is_clean(&lab.kiln.root(), &sleep);
    context.edit(&sleep, "true");
    lab.build(&context).ok();
    assert_store_is_clean(&lab.kiln.root(), &sleep);
}

#[test]
fn ctrl_c_leaves_nothing() {
    let Some(lab) = Lab::require() else {
        return;
    };
    interrupt(&lab, Signal::INT);
}

#[test]
fn sigterm_leaves_nothing() {
    let Some(lab) = Lab::require() else {
        return;
    };
    interrupt(&lab, Signal::TERM);
}

#[test]
fn ordinary_user_leaves_nothing() {
    let Some(lab) = Lab::of_ordinary_user() else {
        return;
    };
    interrupt(&lab, Signal::TERM);
}

#[test]
fn during_a_pull_leaves_nothing() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let proxy = Proxy::before(lab.registry.host());
    proxy.hold_after(Flow::Down, 200_000);
    let context = Context::new("ARG BASE\nFROM $BASE\nRUN true\n");
    let base = format!("{}/busybox:latest", proxy.host());
    let build = lab.kiln.build(&context).base(&base).start();
    proxy.wait_until_held();
    build.signal(Signal::INT);
    assert_eq!(build.wait().status.code(), Some(130));
    assert_store_is_clean(&lab.kiln.root(), "no step ran");
    proxy.release();
}

/// A process that outlives its step's shell is not waited for, and dies with the step.
#[test]
fn background_process_dies_with_its_step() {
    let Some(lab) = Lab::require() else {
        return;
    };
    let sleep = long_sleep();
    let context = Context::new(&format!(
        "ARG BASE\nFROM $BASE\nRUN {sleep} & setsid {sleep} > /dev/null 2>&1 & echo ok\n"
    ));
    lab.build(&context).ok();
    assert_store_is_clean(&lab.kiln.root(), &sleep);
}
