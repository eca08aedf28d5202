//! The repository as the rules see it: every text file of it, Rust files also as code without comments and strings.

use std::path::Path;

use crate::lexer::{code_of, without_test_modules};

/// What is looked at below the root.
const FOLDERS: [&str; 14] = [
    "src",
    "tests",
    "examples",
    "benches",
    "config",
    "dev",
    "docs",
    "proto",
    "migrations",
    "ui",
    "sdk",
    "deploy",
    ".ci",
    ".cargo",
];

/// Folders that are made, not written.
const MADE: [&str; 4] = ["target", "node_modules", "__pycache__", "dist"];

/// A text file of the repository.
pub struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
    /// For Rust files: the code that ships. No comments, strings or test modules; empty for test code.
    pub code: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { without_test_modules(&code_of(text)) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Test code inside `src/`: a file that its parent takes in under `cfg(test)` only. By name: `tests.rs`, `tests/`.
    pub fn is_test(&self) -> bool {
        !self.path.starts_with("src/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }
}

/// The files the rules are applied to.
pub struct Repo {
    pub files: Vec<File>,
}

impl Repo {
    /// Reads the repository this test was compiled from.
    pub fn load() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(root).expect("the repository can be read") {
            let path = entry.expect("the repository can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_file() && !name.starts_with(".git") {
                read(root, &path, &mut files);
            } else if FOLDERS.contains(&name.as_str()) {
                walk(root, &path, &mut files);
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { files }
    }

    /// Files below `folder`.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.starts_with(folder))
    }

    /// Rust files that ship.
    pub fn shipped(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust() && !file.is_test())
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<File>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !MADE.contains(&name.as_str()) {
            walk(root, &path, files);
        } else if path.is_file() {
            read(root, &path, files);
        }
    }
}

fn read(root: &Path, path: &Path, files: &mut Vec<File>) {
    // What is not text (an image, a payload of a test) has no rules.
    if let Ok(text) = std::fs::read_to_string(path) {
        let relative = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        files.push(File::new(&relative, &text));
    }
}
