//! The command line. Data goes to stdout, everything else to stderr.

mod backtest;
mod check;
mod client;
pub(crate) mod compile;
mod explain;
mod incidents;
mod operate;
mod output;
mod past;
mod plugin;
mod policy_report;
mod policy_test;
mod reference;
mod replay;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand, ValueEnum};
use sentinel_core::duration::HumanDuration;
use sentinel_core::id::{IncidentId, PolicyName};
use sentinel_core::incident::Phase;

use self::operate::{ByArgs, DaemonArgs, ScopeArgs};
use self::output::Failure;

/// Exit codes, as `--help` lists them.
const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   found a problem in what was given (a policy, a plugin, a configuration, an id)
  2   used wrongly
  65  the journal is damaged
  69  something needed cannot be reached (the daemon, an address in use)
  70  sentinel itself failed
  73  a file or folder cannot be written, or another daemon holds it
  74  the output cannot be written
  78  the configuration cannot be used, and the daemon does not start";

/// The configuration that is read when none is named.
const CONFIG: &str = "sentinel.yaml";

/// Takes alerts, decides by policies, and heals through sandboxed plugins.
#[derive(Debug, Parser)]
#[command(name = "sentinel", version, about, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The configuration file; paths in it are relative to it.
    #[arg(
        long,
        global = true,
        env = "SENTINEL_CONFIG",
        default_value = CONFIG,
        value_name = "FILE"
    )]
    config: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon.
    ///
    /// Takes alerts at `POST /api/v1/alerts/alertmanager` (Alertmanager's and Grafana's
    /// webhook) and `POST /api/v2/alerts` (straight from Prometheus). SIGTERM and SIGINT stop it:
    /// runs that have begun get `shutdown_grace` to end, and a second signal skips that. SIGHUP makes
    /// it look at its plugins and policies at once; it also watches both folders.
    #[command(after_help = EXIT_CODES)]
    Serve,
    /// Validate the configuration, every plugin and every policy, without a daemon.
    ///
    /// Reads what `serve` would read, compiles the plugins, checks the policies against them, and
    /// changes nothing. Exits with 1 when anything is wrong.
    #[command(after_help = EXIT_CODES)]
    Check(OutputArgs),
    /// Look at incidents.
    #[command(subcommand)]
    Incidents(IncidentsCommand),
    /// Make, build, test and look at plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Test policies, and look at what they did.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Say why something was done about an alert, or was not.
    ///
    /// Holds the alert against every policy of `policies_dir` and names the first matcher that
    /// fails; says whether a notification of it would be taken for a repetition, and of what; and asks
    /// each guard now, with the journal's memory: which hold, and when they let go. Of an incident it
    /// also shows what was decided, guard by guard.
    ///
    /// For example:
    ///   `sentinel explain 17`
    ///   `sentinel explain NginxDown`
    ///   `sentinel explain 'alertname="NginxDown", instance=~"web-.*"'`
    ///   `sentinel explain alert.json`
    #[command(after_help = EXIT_CODES, verbatim_doc_comment)]
    Explain {
        /// An incident by its number; an alert by its fingerprint, its alertname, matchers in
        /// quotes, or a `.json` file with its labels, as in Alertmanager's webhook. Of several alerts the
        /// one that was told of last.
        #[arg(value_name = "ALERT|INCIDENT")]
        what: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Run candidate policies over the alerts of the journal, and say what would be different.
    ///
    /// The notifications are played to the daemon's own engine at their times, and its decisions
    /// are held against what happened: incidents that would be new, gone, or changed in policy,
    /// target, mode, steps, guards or end. The same policies over what they did change nothing.
    #[command(after_help = backtest::LIMITS)]
    Backtest(backtest::BacktestArgs),
    /// Play a run once more on its record: nothing outside is touched.
    ///
    /// Shows call by call what the plugin saw and did. With --plugin another version is told what
    /// the record has, up to the first call in which it differs; with --last it is held against
    /// the last runs, a regression suite of real history. Reads the journal in the configuration's
    /// `data_dir`, whether a daemon runs or not. Exits with 1 when anything differs.
    #[command(after_help = EXIT_CODES)]
    Replay(replay::ReplayArgs),
    /// Throw the stop switch: no effect begins any more until `resume`.
    ///
    /// It holds from the very next effect on, also of runs that are under way: these are ended
    /// between two effects, and go on from there when the pause is over. It survives a restart.
    #[command(after_help = EXIT_CODES)]
    Pause {
        #[command(flatten)]
        scope: ScopeArgs,
        /// For how long, such as `2h`; until `resume` without it.
        #[arg(long = "for", value_name = "DURATION")]
        duration: Option<HumanDuration>,
        /// Why; it goes on record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        by: ByArgs,
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// Release the stop switch.
    #[command(after_help = EXIT_CODES)]
    Resume {
        #[command(flatten)]
        scope: ScopeArgs,
        #[command(flatten)]
        by: ByArgs,
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// List what is paused, and which policies are in a storm.
    Pauses {
        #[command(flatten)]
        daemon: DaemonArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Approve the plan that an incident waits with: exactly this plan is carried out.
    ///
    /// Without --plan the plan is shown and asked about.
    #[command(after_help = EXIT_CODES)]
    Approve {
        /// The incident's number.
        id: IncidentId,
        /// The plan that you saw, by its digest or at least the first 8 digits of it.
        #[arg(long, value_name = "DIGEST")]
        plan: Option<String>,
        #[command(flatten)]
        by: ByArgs,
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// Deny the plan that an incident waits with: the incident is cancelled.
    #[command(after_help = EXIT_CODES)]
    Deny {
        /// The incident's number.
        id: IncidentId,
        /// Why; it goes on record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        by: ByArgs,
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// End an incident: a run that is under way is ended between two effects.
    #[command(after_help = EXIT_CODES)]
    Cancel {
        /// The incident's number.
        id: IncidentId,
        /// Why; it goes on record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        by: ByArgs,
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// Print a completion script for a shell.
    ///
    /// For example: `sentinel completions bash > /etc/bash_completion.d/sentinel`
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands to a folder.
    Man {
        /// The folder to write them to.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Make machine code of a component: what the daemon compiles plugins with.
    #[command(name = compile::COMMAND, hide = true)]
    CompilePlugin,
}

#[derive(Debug, Subcommand)]
enum IncidentsCommand {
    /// List incidents, newest first.
    List {
        /// Only those of this policy.
        #[arg(long)]
        policy: Option<String>,
        /// Only those in this state.
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Phase::WORDS))]
        state: Option<String>,
        /// Only those that have not ended.
        #[arg(long)]
        open: bool,
        /// How many at the most, 1 to 1000.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        from: FromArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show one incident: the alert, each decision, run, effect and verification, and the end.
    Show {
        /// The incident's number.
        id: IncidentId,
        #[command(flatten)]
        from: FromArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Where incidents are read from.
#[derive(Debug, Args)]
struct FromArgs {
    /// Ask a running daemon, for example `http://127.0.0.1:9095`; without it the journal in the
    /// configuration's `data_dir` is read, whether a daemon runs or not.
    #[arg(long, env = "SENTINEL_URL", value_name = "URL", value_parser = client::address)]
    url: Option<url::Url>,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Run unit tests of policies: alerts in, decisions expected.
    ///
    /// Each FILE names policy files and lists tests; see docs/policy-tests.md. Needs no
    /// configuration, no daemon and no plugins, takes no real time, and says the same every time. Exits
    /// with 1 when a test fails or a file has a mistake.
    #[command(after_help = EXIT_CODES)]
    Test {
        /// Files of tests.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only the tests whose name contains this.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Print everything that led to the decisions.
        #[arg(long)]
        trace: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Say what a policy did, or as a shadow would have done: the evidence for promoting it.
    ///
    /// Of a shadow: the effects that it planned, how often the alert cleared by itself and after how
    /// long, how often guards held it, failed dry runs, what other policies did on its targets meanwhile,
    /// and a verdict. It is ready when there were at least 5 incidents, no dry run failed, something was
    /// planned, nothing conflicts, and fewer than 80% of the alerts cleared by themselves within the time
    /// of its verification. Of a policy that acts: how its incidents ended, how long healing took, and
    /// what it did.
    #[command(after_help = EXIT_CODES)]
    Report {
        /// The policy; all of them without it.
        policy: Option<PolicyName>,
        /// Since when: so long ago, or a date.
        #[arg(long, value_name = "WHEN", default_value = "4w")]
        since: past::Moment,
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    output: Output,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs; one JSON document.
    Json,
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut error) => {
            if suggests_an_act(&error) {
                error.remove(ContextKind::SuggestedSubcommand);
            }
            // Answers --help and --version, and exits with 2 when used wrongly.
            error.exit()
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Whether what was typed resembles a command that does something: nobody who looks for
/// `status` should be told to try `pause`.
fn suggests_an_act(error: &clap::Error) -> bool {
    const ACTS: [&str; 9] = [
        "pause", "resume", "approve", "deny", "cancel", "install", "rollback", "remove", "accept",
    ];
    match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::String(name)) => ACTS.contains(&name.as_str()),
        Some(ContextValue::Strings(names)) => names.iter().any(|name| ACTS.contains(&&**name)),
        _ => false,
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let config = cli.config;
    match cli.command {
        Command::Serve => serve::run(&config),
        Command::Check(args) => check::run(&config, args.output),
        Command::Incidents(IncidentsCommand::List {
            policy,
            state,
            open,
            limit,
            from,
            output,
        }) => {
            let filter = sentinel_journal::IncidentFilter {
                policy,
                state,
                open,
                before: None,
                limit,
            };
            incidents::list(&config, from.url.as_ref(), &filter, output.output)
        }
        Command::Incidents(IncidentsCommand::Show { id, from, output }) => {
            incidents::show(&config, from.url.as_ref(), id, output.output)
        }
        Command::Plugin(command) => plugin::dispatch(&config, command),
        Command::Policy(PolicyCommand::Test {
            files,
            only,
            trace,
            output,
        }) => policy_test::run(&files, only.as_deref(), trace, output.output),
        Command::Policy(PolicyCommand::Report {
            policy,
            since,
            output,
        }) => policy_report::run(&config, policy.as_ref(), since, output.output),
        Command::Explain { what, output } => explain::run(&config, &what, output.output),
        Command::Backtest(args) => backtest::run(&config, &args),
        Command::Replay(args) => replay::run(&config, &args),
        Command::Pause {
            scope,
            duration,
            reason,
            by,
            daemon,
        } => operate::pause(&config, daemon, scope, duration, by, reason),
        Command::Resume { scope, by, daemon } => operate::resume(&config, daemon, scope, by),
        Command::Pauses { daemon, output } => operate::pauses(&config, daemon, output.output),
        Command::Approve {
            id,
            plan,
            by,
            daemon,
        } => operate::approve(&config, daemon, id, plan.as_deref(), by),
        Command::Deny {
            id,
            reason,
            by,
            daemon,
        } => operate::deny(&config, daemon, id, by, reason),
        Command::Cancel {
            id,
            reason,
            by,
            daemon,
        } => operate::cancel(&config, daemon, id, by, reason),
        Command::Completions { shell } => reference::completions(shell),
        Command::Man { out } => reference::man(out.as_deref()),
        Command::CompilePlugin => compile::run(),
    }
}

/// A variable of the environment; an empty one counts as not set.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_that_acts_is_suggested() {
        for (typed, acts) in [
            ("status", true),
            ("pasue", true),
            ("cancle", true),
            ("incidnets", false),
            ("chekc", false),
        ] {
            let error = Cli::try_parse_from(["sentinel", typed]).unwrap_err();
            assert_eq!(suggests_an_act(&error), acts, "{typed}: {error}");
        }
    }

    #[test]
    fn an_address_of_a_daemon_says_what_is_expected() {
        for typed in [
            "127.0.0.1:9095",
            "localhost:9095",
            "",
            "sentinel",
            "ftp://a/",
            "http://",
        ] {
            let error = client::address(typed).unwrap_err();
            assert!(error.contains("http://127.0.0.1:9095"), "{typed}: {error}");
        }
        assert!(client::address("https://sentinel.example.com/a").is_ok());
    }
}
