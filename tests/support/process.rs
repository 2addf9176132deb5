//! Tests that need a process of their own.

use std::process::Command;

/// Runs an ignored test in another process, and fails when that does. `prepare` sets its environment.
#[track_caller]
pub fn run_alone(test: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored"]);
    let output = prepare(&mut command).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
