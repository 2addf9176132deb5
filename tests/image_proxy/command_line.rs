//! The command line is strict.

use super::arguments::{Arguments, USAGE};

fn parse(line: &str) -> Result<Arguments, String> {
    Arguments::parse(line.split_whitespace().map(str::to_owned))
}

#[test]
fn the_port_is_fixed_unless_chosen() {
    for (line, port) in [
        ("", 8080),
        ("--demo", 0),
        ("--port 0", 0),
        ("--port 9000 --demo", 9000),
    ] {
        assert_eq!(parse(line).unwrap().port, port, "{line}");
    }
}

#[test]
fn arguments_are_refused_with_a_sentence() {
    for (line, sentence) in [
        ("--prot 1", "unknown argument `--prot`"),
        ("demo", "unknown argument `demo`"),
        ("--port", "`--port `: 0 to 65535 is accepted"),
        ("--port 65536", "`--port 65536`: 0 to 65535 is accepted"),
        (
            "--allow-origin https://origin",
            "`--allow-origin https://origin`: an http:// URL is accepted",
        ),
        (
            "--allow-origin http://origin:99999",
            "`--allow-origin http://origin:99999`: an http:// URL is accepted",
        ),
        (
            "--max-memory 0",
            "`--max-memory 0`: 1 to 1048576 (MiB) is accepted",
        ),
        (
            "--max-memory 99999999999",
            "`--max-memory 99999999999`: 1 to 1048576 (MiB) is accepted",
        ),
        ("--cache x", "`--cache x`: 0 to 1048576 (MiB) is accepted"),
        (
            "--max-age",
            "`--max-age `: a whole number of seconds is accepted",
        ),
        (
            "--trusted-proxy",
            "`--trusted-proxy `: a list like 127.0.0.1,10.0.0.0/8 is accepted",
        ),
        (
            "--trusted-proxy 10.0.0.0/33",
            "`--trusted-proxy 10.0.0.0/33`: a list like 127.0.0.1,10.0.0.0/8 is accepted",
        ),
        (
            "--drain -1",
            "`--drain -1`: a whole number of seconds is accepted",
        ),
    ] {
        assert_eq!(parse(line).unwrap_err(), sentence, "{line}");
    }
}

#[test]
fn origins_are_taken_from_urls() {
    let arguments =
        parse("--allow-origin http://Origin --allow-origin http://[::1]:9000/").unwrap();
    let origins: Vec<_> = arguments
        .allowed_origins
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(origins, ["http://origin:80", "http://[::1]:9000"]);
}

#[test]
fn memory_and_drain_have_defaults() {
    let arguments = parse("").unwrap();
    assert_eq!(
        (arguments.memory, arguments.drain.as_secs()),
        (512 << 20, 10)
    );
    let arguments = parse("--max-memory 64 --drain 0").unwrap();
    assert_eq!((arguments.memory, arguments.drain.as_secs()), (64 << 20, 0));
}

#[test]
fn the_usage_names_every_argument_in_80_columns() {
    for argument in [
        "--port 1",
        "--allow-origin http://origin",
        "--max-memory 64",
        "--trusted-proxy 10.0.0.0/8",
        "--cache 0",
        "--max-age 60",
        "--drain 0",
        "--traffic",
        "--demo",
        "--help",
    ] {
        parse(argument).unwrap();
        let (name, _) = argument.split_once(' ').unwrap_or((argument, ""));
        assert!(USAGE.contains(&format!("\n  {name} ")), "{name}");
    }
    assert!(USAGE.lines().all(|line| line.chars().count() <= 80));
}
