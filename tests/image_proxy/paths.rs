//! A path is parsed into options and a source, or an error says in one sentence what is wrong.

use base64::{
    Engine,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};

use super::options::{Format, ImagePath, Mode, Options};

const URL: &str = "http://origin/a/b@2x.png?v=1:22";

fn options(
    mode: Mode,
    width: u32,
    height: u32,
    quality: u8,
    format: impl Into<Option<Format>>,
) -> Options {
    Options {
        accepts_webp: false,
        mode,
        width,
        height,
        quality,
        format: format.into(),
    }
}

#[test]
fn options_are_read_in_their_order() {
    for (text, expected) in [
        ("", Options::default()),
        ("rs:fit:300:200", options(Mode::Fit, 300, 200, 80, None)),
        ("rs:fill:300:200", options(Mode::Fill, 300, 200, 80, None)),
        ("resize:force:300", options(Mode::Force, 300, 0, 80, None)),
        ("rs::300:200", options(Mode::Fit, 300, 200, 80, None)),
        ("w:300/h:200", options(Mode::Fit, 300, 200, 80, None)),
        (
            "rs:fit:300:200/w:4096",
            options(Mode::Fit, 4096, 200, 80, None),
        ),
        (
            "rt:fill/width:5/height:0",
            options(Mode::Fill, 5, 0, 80, None),
        ),
        ("q:1/f:jpg", options(Mode::Fit, 0, 0, 1, Format::Jpeg)),
        (
            "quality:100/ext:jpeg",
            options(Mode::Fit, 0, 0, 100, Format::Jpeg),
        ),
        ("f:png", options(Mode::Fit, 0, 0, 80, Format::Png)),
        ("format:webp", options(Mode::Fit, 0, 0, 80, Format::WebP)),
    ] {
        let slash = if text.is_empty() { "" } else { "/" };
        let path = ImagePath::parse(&format!("{text}{slash}plain/{URL}"));
        let path = path.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(path.options, expected, "{text}");
        assert_eq!(path.options_text, text);
        assert_eq!(path.source, URL, "{text}");
    }
}

#[test]
fn a_source_may_be_base64() {
    let bare = URL_SAFE_NO_PAD.encode(URL);
    let padded = URL_SAFE.encode(URL);
    assert_ne!(bare, padded);
    let (head, tail) = bare.split_at(10);
    for source in [&bare, &padded, &format!("{head}/{tail}")] {
        let path = ImagePath::parse(&format!("w:300/{source}")).unwrap();
        assert_eq!(path.source, URL, "{source}");
        assert_eq!(path.options_text, "w:300");
    }
}

/// A byte that is not UTF-8 can only be meant as it is, so it is percent-encoded.
#[test]
fn a_source_may_have_any_bytes() {
    // faults E4
    let source = URL_SAFE_NO_PAD.encode(b"http://origin/\xfc.png");
    let path = ImagePath::parse(&format!("w:300/{source}")).unwrap();
    assert_eq!(path.source, "http://origin/%FC.png");
}

#[test]
fn what_is_wrong_is_said_in_a_sentence() {
    let side = "is not a side length: 0 to 4096 pixels are accepted";
    for (text, sentence) in [
        (
            "zoom:2",
            "unknown option `zoom`: rs, rt, w, h, q and f are accepted".to_owned(),
        ),
        (
            "rs:stretch:1:1",
            "`stretch` is not a resizing type: fit, fill and force are accepted".to_owned(),
        ),
        ("w:4097", format!("`4097` {side}")),
        ("h:-1", format!("`-1` {side}")),
        ("rs:fit:many", format!("`many` {side}")),
        (
            "q:0",
            "`0` is not a quality: 1 to 100 is accepted".to_owned(),
        ),
        (
            "q:101",
            "`101` is not a quality: 1 to 100 is accepted".to_owned(),
        ),
        (
            "f:gif",
            "`gif` is not a format of a result: jpg, png and webp are accepted".to_owned(),
        ),
        ("w:1:2", "`w:1:2` has too many arguments".to_owned()),
    ] {
        let error = ImagePath::parse(&format!("{text}/plain/{URL}")).unwrap_err();
        assert_eq!(error.to_string(), sentence, "{text}");
    }
    let no_source = "the path names no source: it ends with `plain/` and a percent-encoded URL, or with a URL in URL-safe base64";
    let no_base64 = "the source is neither `plain/` with a URL nor a URL in URL-safe base64";
    for (path, sentence) in [
        ("", no_source),
        ("w:300", no_source),
        ("w:300/plain/", no_source),
        ("w:300/plain", no_base64),
        ("w:300/not+base64", no_base64),
    ] {
        let error = ImagePath::parse(path).unwrap_err();
        assert_eq!(error.to_string(), sentence, "{path}");
    }
}
