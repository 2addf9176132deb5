//! Files of one test.

use std::path::PathBuf;

/// A file that is gone when dropped.
pub struct File(PathBuf);

impl File {
    pub fn new(name: &str, text: &str) -> Self {
        let unique = format!(
            "{}-{:?}-{name}",
            std::process::id(),
            std::thread::current().id()
        );
        let file = Self(std::env::temp_dir().join(unique));
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
