//! The files of the page.

use std::{hash::Hasher, io::Write, sync::OnceLock};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use rustc_hash::FxHasher;

/// A file that is part of the program.
#[derive(Debug)]
pub(super) struct File {
    name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) content: &'static [u8],
    compressed: OnceLock<Bytes>,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal $content_type:ident,)*) => {
        [$(File {
            name: $name,
            content_type: $content_type,
            content: include_bytes!(concat!("assets/", $name)),
            compressed: OnceLock::new(),
        },)*]
    };
}

static FILES: [File; 12] = files![
    "index.html" HTML,
    "page.css" CSS,
    "icon.svg" SVG,
    "address.js" JAVASCRIPT,
    "dom.js" JAVASCRIPT,
    "format.js" JAVASCRIPT,
    "health.js" JAVASCRIPT,
    "live.js" JAVASCRIPT,
    "main.js" JAVASCRIPT,
    "overview.js" JAVASCRIPT,
    "trace.js" JAVASCRIPT,
    "waterfall.js" JAVASCRIPT,
];

/// The file of that name; the page itself has none.
pub(super) fn file(name: &str) -> Option<&'static File> {
    let name = if name.is_empty() { "index.html" } else { name };
    FILES.iter().find(|file| file.name == name)
}

impl File {
    /// The same in gzip.
    pub(super) fn compressed(&self) -> Bytes {
        let compressed = self.compressed.get_or_init(|| gzip(self.content));
        compressed.clone()
    }

    /// Weak, because it names the file in both encodings.
    pub(super) fn etag(&self) -> String {
        let mut hasher = FxHasher::default();
        hasher.write(self.content);
        format!("W/\"{:x}\"", hasher.finish())
    }
}

/// In memory nothing fails: what came out is whole.
pub(super) fn gzip(content: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_served_and_small() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/page/assets");
        let mut bytes = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let file = file(&name).unwrap_or_else(|| panic!("{name} is not in the list"));
            bytes += file.content.len();
        }
        assert!(
            bytes <= 60_000,
            "{bytes} bytes are more than a page may have"
        );
    }
}
