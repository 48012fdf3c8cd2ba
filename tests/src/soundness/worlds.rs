//! Two worlds that take turns at one path: paths reach what a compiler makes, so both must see the same ones.
//!
//! Each world has a history of its own, outputs included. What is the same in both has the same time in both.

use std::path::{Path, PathBuf};

use crate::scratch::files_below;

/// Whose world it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The compiler alone.
    Bare,
    /// The compiler behind a launcher.
    Launched,
}

/// The two worlds.
#[derive(Debug)]
pub struct Worlds {
    dir: PathBuf,
}

/// A world that is at the path now; it steps aside when dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    worlds: &'a Worlds,
    side: Side,
}

impl Worlds {
    /// Two empty worlds below `dir`.
    pub fn new(dir: PathBuf) -> Self {
        let worlds = Self { dir };
        for side in [Side::Bare, Side::Launched] {
            fs_err::create_dir_all(worlds.aside(side).join("project")).expect("a world");
        }
        worlds
    }

    /// The project's root, whoever's turn it is.
    pub fn root(&self) -> PathBuf {
        self.dir.join("world/project")
    }

    /// It is this side's turn, until the guard is dropped.
    pub fn enter(&self, side: Side) -> Turn<'_> {
        fs_err::rename(self.aside(side), self.dir.join("world")).expect("a world that is not in use");
        Turn { worlds: self, side }
    }

    /// Gives every file that is the same in both worlds the same time: it gets into precompiled headers, `__TIMESTAMP__`
    /// and the like.
    pub fn agree(&self) {
        let [bare, launched] = [Side::Bare, Side::Launched].map(|side| self.aside(side).join("project"));
        for name in files_below(&launched) {
            agree_on(&bare.join(&name), &launched.join(&name));
        }
    }

    fn aside(&self, side: Side) -> PathBuf {
        self.dir.join(match side {
            Side::Bare => "bare",
            Side::Launched => "launched",
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        fs_err::rename(self.worlds.dir.join("world"), self.worlds.aside(self.side)).expect("a world in use");
    }
}

fn agree_on(bare: &Path, launched: &Path) {
    let regular = |path: &Path| fs_err::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file);
    let (Some(mine), Some(theirs)) = (regular(bare), regular(launched)) else { return };
    let (Ok(old), Ok(new)) = (mine.modified(), theirs.modified()) else { return };
    if old == new || mine.len() != theirs.len() || fs_err::read(bare).ok() != fs_err::read(launched).ok() {
        return;
    }
    if let Ok(file) = fs_err::OpenOptions::new().append(true).open(bare) {
        file.file().set_modified(new).expect("a file's time");
    }
}
