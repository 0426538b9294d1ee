//! Completions for bash, zsh and fish.

use anyhow::{Result, ensure};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Command, CommandFactory, ValueHint};
use clap_complete::{Shell, generate};

use crate::File;
use crate::cli::arguments::Arguments;
use crate::cli::help::{MOUNT_OPTIONS, MountOption, Value};

/// A script for each shell, named as the shell looks for it.
///
/// # Errors
/// Where the generator for zsh does not write what is known of it.
pub(crate) fn scripts(definition: &Command) -> Result<Vec<File>> {
    let script = |shell, command: &Command| {
        let mut script = Vec::new();
        generate(shell, &mut command.clone(), "procmemfs", &mut script);
        script
    };
    let mount = Arguments::command()
        .name("mount")
        .about("Mount, as without this word");
    let mount = with_mount_options(mount);
    let all = with_mount_options(definition.clone()).subcommand(mount);
    let fish = script(Shell::Fish, &all);
    let zsh = script(Shell::Zsh, &without_positionals(&all));
    Ok(vec![
        (
            "completions/bash/procmemfs".to_owned(),
            script(Shell::Bash, &all),
        ),
        (
            "completions/zsh/_procmemfs".to_owned(),
            commands_or_directories(&String::from_utf8(zsh)?)?.into_bytes(),
        ),
        (
            "completions/fish/procmemfs.fish".to_owned(),
            options_always(&String::from_utf8(fish)?)?.into_bytes(),
        ),
    ])
}

/// The same command, which takes no paths by itself.
fn without_positionals(command: &Command) -> Command {
    let arguments = command
        .get_arguments()
        .filter(|argument| !argument.is_positional());
    Command::new("procmemfs")
        .disable_help_subcommand(true)
        .version(env!("CARGO_PKG_VERSION"))
        .args(arguments.cloned())
        .subcommands(command.get_subcommands().cloned())
}

/// The script for zsh, which takes the first word for a command, or for the directory to mount on. (The generator knows
/// either: with both it looks for commands after the directory.)
fn commands_or_directories(script: &str) -> Result<String> {
    let commands = r#"":: :_procmemfs_commands" \"#;
    let both = r#"":: :{_alternative 'commands:command:_procmemfs_commands' 'directories:mount point:_files -/'}" \"#;
    ensure!(
        script.matches(commands).count() == 1,
        "the script for zsh does not have one line '{commands}'"
    );
    Ok(script.replace(commands, both))
}

/// The script for fish, which knows values of `-o` wherever it stands. (The generator has them known where no command is given
/// yet, and fish cannot tell that of a line which ends after `-o`.)
fn options_always(script: &str) -> Result<String> {
    let before = r#" -n "__fish_procmemfs_needs_command" -s o "#;
    ensure!(
        script.matches(before).count() == 1,
        "the script for fish does not have one line with '{before}'"
    );
    Ok(script.replace(before, " -s o "))
}

/// The command, whose `-o` has words to choose from. (The program itself must not have them: it takes lists.)
fn with_mount_options(command: Command) -> Command {
    let values: Vec<PossibleValue> = MOUNT_OPTIONS.iter().flat_map(values).collect();
    command.mut_arg("options", |options| {
        options
            .value_parser(PossibleValuesParser::new(values))
            // For bash: no space is put after what is completed, since a value or a comma may follow.
            .value_hint(ValueHint::Other)
    })
}

/// The option as far as it can be written for somebody.
fn values(option: &MountOption) -> Vec<PossibleValue> {
    let name = option.name;
    let with = |word: &&str| format!("{name}={word}");
    let texts: Vec<String> = match option.value {
        Value::No => vec![name.to_owned()],
        Value::Kind(_) => vec![format!("{name}=")],
        Value::OneOf(words) => words.iter().map(with).collect(),
        Value::MaybeOneOf(words) => {
            let alone = [name.to_owned()];
            alone.into_iter().chain(words.iter().map(with)).collect()
        }
    };
    // They live as long as the program: without its feature `string` clap takes no others.
    let values = texts
        .into_iter()
        .map(|text| PossibleValue::new(&*text.leak()));
    values.map(|value| value.help(option.about)).collect()
}
