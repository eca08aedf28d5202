//! A small file system in memory, of a test's own: it can be filled without harm to anybody else. In: where and how large;
//! fails softly where this user may not mount, and says so.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file system.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount; said, because the test then shows nothing.
    pub fn mount(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("the mount point");
        let options = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        if !mounted.is_ok_and(|status| status.success()) {
            // Past the capture of a test that passes: it shows nothing, and somebody has to know.
            writeln!(std::io::stderr(), "left out: a disk that fills up needs the right to mount a tmpfs")
                .ok();
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes every free byte; the returned file holds them.
    pub fn fill(&self) -> PathBuf {
        let (path, mut file) = self.ballast();
        for size in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }

    /// Takes free bytes until no more than `mib` MiB are left; the returned file holds them.
    pub fn fill_to(&self, mib: u64) -> PathBuf {
        let (path, mut file) = self.ballast();
        while self.free() > mib << 20 && file.write_all(&[0; 1 << 20]).is_ok() {}
        path
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.0).expect("it is there");
        stat.blocks_available() * stat.fragment_size()
    }

    fn ballast(&self) -> (PathBuf, File) {
        let path = self.0.join("ballast");
        let file = File::options().create(true).append(true).open(&path).expect("the ballast");
        (path, file)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the process that is being killed may hold a file for a moment longer.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}
