//! `pcmcache completions` and `pcmcache man`: what shells and readers want, written from the command line's own definition.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;
use pcmcache_shared::disk;

/// Which shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell that is to complete commands
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Writes the shell's script to stdout.
    pub fn run(&self, mut command: clap::Command) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "pcmcache", &mut script);
        super::say(&String::from_utf8_lossy(&script))
    }
}

/// Where to.
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for each command into DIR; without, the page of pcmcache goes to stdout
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    /// Writes the pages.
    pub fn run(&self, command: clap::Command) -> anyhow::Result<()> {
        match &self.dir {
            Some(dir) => write_pages(command, dir),
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page)?;
                super::say(&String::from_utf8_lossy(&page))
            }
        }
    }
}

fn write_pages(command: clap::Command, dir: &Path) -> anyhow::Result<()> {
    disk::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)
        .with_context(|| format!("cannot write pages into {}", dir.display()))
}
