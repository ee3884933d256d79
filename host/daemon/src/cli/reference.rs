//! `sentinel completions` and `sentinel man`: from the same definitions as `--help`.

use std::path::Path;

use clap::CommandFactory as _;

use super::Cli;
use super::output::{Failure, print};

pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sentinel", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(out: Option<&Path>) -> Result<(), Failure> {
    let Some(folder) = out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|error| Failure::software(error.to_string()))?;
        return print(&String::from_utf8_lossy(&page));
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|error| Failure::cannot_create(format!("{}: {error}", folder.display())))
}
