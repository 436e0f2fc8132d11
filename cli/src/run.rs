//! From `main` to a command and back to an exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kiln_cache::Store;
use kiln_runtime::Privilege;

use crate::args::{
    BuildArgs, Cli, Command, Diagnostics, Print, Progress, StoreCommand, TextOrJson,
};
use crate::commands::build::caching::Caches;
use crate::commands::build::{Build, Built, Prepared};
use crate::commands::why::BuildReport;
use crate::commands::{call, du, images, inspect, login, mounts, prune, push, store, why};
use crate::config::Configuration;
use crate::environment::Environment;
use crate::epoch;
use crate::export::{Facts, export, facts_alone};
use crate::fetch::fetch;
use crate::mount_args::CacheCommand;
use crate::plan::BuildPlan;
use crate::progress::Mode;
use crate::report::{Failure, FailureKind};
use crate::session::{Session, open_store, open_store_with, with_store_hint};
use crate::show::{PATIENCE, mode_of, with_progress};
use crate::stop::until_stopped;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to standard output.
            let _unprinted = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let env = Environment::read();
    start_log(&env);
    match run(cli, &env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if is_broken_pipe(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            let failure = with_store_hint(failure);
            let _unprinted = io::stderr().write_all(failure.render().as_bytes());
            failure.exit_code()
        }
    }
}

/// The reader of our output has seen enough.
fn is_broken_pipe(failure: &Failure) -> bool {
    failure.error.chain().any(|error| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn start_log(env: &Environment) {
    let level = env
        .log_level
        .as_deref()
        .and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::Level::WARN))
        .with_ansi(env.is_terminal && !env.no_color)
        .with_writer(io::stderr)
        .init();
}

fn run(cli: Cli, env: &Environment) -> Result<(), Failure> {
    // Modes of what we make are what we say.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let enter = || kiln_runtime::enter_user_namespace().map_err(Failure::user);
    let open = || open_store(cli.root.clone(), env, &enter()?);
    let out = &mut io::stdout();
    match &cli.command {
        Command::Build(args) => {
            let privilege = enter()?;
            let plan = BuildPlan::new(args, env)?;
            let store = open_store(cli.root, env, &privilege)?;
            if let Some(limit) = args.max_cache.or(Configuration::read(env)?.max_cache) {
                store.set_limit(limit).map_err(Failure::user)?;
            }
            build(args, plan, store, env, &privilege)
        }
        Command::Inspect(args) => inspect::run(args, &open()?, out),
        Command::Images(args) => images::run(args, &open()?, out),
        Command::Why(args) => why::run(args, &open()?, out),
        Command::Du(args) => du::run(args, &open()?, out),
        Command::Prune(args) => {
            let privilege = enter()?;
            let store = open_store_with(Store::open_to_make_room, cli.root, env, &privilege)?;
            prune::run(args, &store, out)
        }
        Command::Cache(args) => {
            let CacheCommand::Mounts(args) = &args.command;
            mounts::run(&args.command, &open()?, env, out)
        }
        Command::Store(args) => {
            let StoreCommand::Verify(args) = &args.command;
            store::verify(args, open()?, out)
        }
        Command::Push(args) => {
            let privilege = enter()?;
            let store = open_store(cli.root, env, &privilege)?;
            push::run(args, store, env, &privilege, out)
        }
        // Outside the user namespace: helpers ask services of the user, who would be root in it.
        Command::Login(args) => login::login(args, env, out),
        Command::Logout(args) => login::logout(args, env, out),
    }
}

fn build(
    args: &BuildArgs,
    plan: BuildPlan,
    store: Store,
    env: &Environment,
    privilege: &Privilege,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::user)?;
    // Registries start their connections on the runtime.
    let entered = runtime.enter();
    let mut session = Session::new(store, env, privilege, &args.registry)?;
    let credentials = plan.settings.credentials.clone();
    session.sources = session.sources.with_credentials(credentials);
    drop(entered);
    let result = runtime.block_on(build_and_show(args, plan, &session, env, privilege));
    // Steps are dead by now. Who still copies or compresses a large file, or waits for a disk that does
    // not answer, ends with us.
    runtime.shutdown_timeout(PATIENCE);
    if let Err(Failure {
        kind: FailureKind::Stopped(_),
        ..
    }) = &result
    {
        session.store.discard_temporary();
    }
    let facts = result?;
    // What was built has gone where it was to go, so it counts for the limit like all else.
    session.store.end_use().map_err(Failure::user)?;
    if let (true, Some(facts)) = (args.quiet, facts) {
        writeln!(io::stdout(), "{}", facts.id).map_err(Failure::user)?;
    }
    Ok(())
}

/// Builds, and shows progress beside it.
async fn build_and_show(
    args: &BuildArgs,
    plan: BuildPlan,
    session: &Session,
    env: &Environment,
    privilege: &Privilege,
) -> Result<Option<Facts>, Failure> {
    let color = env.is_terminal && !env.no_color;
    let report = Mutex::new(BuildReport {
        origin: plan.reuse.origin.clone(),
        tags: plan.tags.iter().map(ToString::to_string).collect(),
        steps: Vec::new(),
    });
    let kept = &report;
    let result = with_progress(mode_of_build(args, env), |reporter| async move {
        for warning in &privilege.warnings {
            reporter.warn(warning.as_str());
        }
        until_stopped(async {
            let context = plan.contexts[0].1.clone();
            let mut plan = fetch(plan, session, &reporter).await?;
            let told = (&reporter, color, args.diagnostics);
            let epoch = epoch::resolved(&Build::new(&plan, session, told, kept), &context).await?;
            let epoch = epoch.map(|value| ("SOURCE_DATE_EPOCH".to_owned(), value));
            plan.options.build_args.extend(epoch);
            let build = Build::new(&plan, session, told, kept);
            build_all(args, &build).await
        })
        .await
    })
    .await;
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    tell(args, &session.store, &report)?;
    result
}

async fn build_all(args: &BuildArgs, build: &Build<'_>) -> Result<Option<Facts>, Failure> {
    if let Some(call) = args.call() {
        return call::run(call, build).await.map(|()| None);
    }
    let prepared = build.prepare().await?;
    let warnings: Vec<_> = prepared
        .iter()
        .flat_map(|one| one.compiled.warnings.clone())
        .collect();
    let result = build_prepared(args, build, prepared).await;
    build.warn(&warnings);
    result
}

async fn build_prepared(
    args: &BuildArgs,
    build: &Build<'_>,
    prepared: Vec<Prepared>,
) -> Result<Option<Facts>, Failure> {
    if let Some(print) = args.print {
        return print_graphs(print, &prepared).map(|()| None);
    }
    let caches = build.open_caches()?;
    let facts = loop {
        let n_broken = build.session.images.n_broken_promises();
        match build_and_export(args, build, &prepared, &caches).await {
            // What a shared cache promised is not there. Without that promise it can be built.
            Err(_) if build.session.images.n_broken_promises() > n_broken => {
                build.forget_steps();
                caches.forget_failure();
            }
            other => break other,
        }
    };
    // Also what was done of a build that failed.
    let cached = match &facts {
        Err(failure) if matches!(failure.kind, FailureKind::Stopped(_)) => Ok(()),
        _ => build.finish_caches(&caches).await,
    };
    let facts = facts?;
    cached?;
    if build.plan.outputs.is_empty() && !args.quiet {
        build.reporter.warn(
            "no output was asked for: the result stays in the cache; \
             name it with --tag, or send it somewhere with --output or --push",
        );
    }
    if let Some(facts) = &facts {
        write_facts(args, facts)?;
    }
    Ok(facts)
}

async fn build_and_export(
    args: &BuildArgs,
    build: &Build<'_>,
    prepared: &[Prepared],
    caches: &Caches,
) -> Result<Option<Facts>, Failure> {
    // What platforms have in common is made once: they wait for each other's keys.
    let run = async |one| {
        let contexts = build.plan.open_contexts()?.into_iter().collect();
        build.run(one, contexts, caches).await
    };
    // `--jobs` holds for each of them alone.
    let at_once = build.plan.jobs.map_or(prepared.len().max(1), |_| 1);
    let built = stream::iter(prepared).map(run).buffered(at_once);
    let built: Vec<Built> = built.try_collect().await?;
    match export(build, &built).await? {
        Some(facts) => Ok(Some(facts)),
        None if args.iidfile.is_some() || args.metadata_file.is_some() || args.quiet => {
            facts_alone(build, &built).await.map(Some)
        }
        None => Ok(None),
    }
}

/// Remembers what a build did, and tells it if that was asked for.
fn tell(args: &BuildArgs, store: &Store, report: &BuildReport) -> Result<(), Failure> {
    if report.steps.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_string(report).expect("a report is plain data");
    if let Err(error) = store.record_build(&text) {
        tracing::warn!(%error, "this build is not remembered");
    }
    let told = |format| report.render(format, why::now());
    match args.explain {
        Some(TextOrJson::Text) => io::stderr().write_all(told(TextOrJson::Text).as_bytes()),
        // Standard output has the digest and nothing else then.
        Some(TextOrJson::Json) if args.quiet => {
            io::stderr().write_all(told(TextOrJson::Json).as_bytes())
        }
        Some(TextOrJson::Json) => io::stdout().write_all(told(TextOrJson::Json).as_bytes()),
        None => Ok(()),
    }
    .map_err(Failure::user)
}

fn write_facts(args: &BuildArgs, facts: &Facts) -> Result<(), Failure> {
    let write = |path: &std::path::Path, text: String| {
        std::fs::write(path, text).map_err(|error| {
            let context = format!("cannot write `{}`", path.display());
            Failure::user(anyhow::Error::new(error).context(context))
        })
    };
    if let Some(path) = &args.iidfile {
        write(path, facts.id.clone())?;
    }
    if let Some(path) = &args.metadata_file {
        let text = serde_json::to_string_pretty(&facts.metadata).expect("plain data");
        write(path, text + "\n")?;
    }
    Ok(())
}

fn print_graphs(print: Print, prepared: &[Prepared]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for one in prepared {
        let (graph, target) = (&one.compiled.graph, one.compiled.target);
        let text = match print {
            Print::Graph => graph.to_json(target) + "\n",
            Print::GraphDot => graph.to_dot(target),
        };
        out.write_all(text.as_bytes()).map_err(Failure::user)?;
    }
    Ok(())
}

fn mode_of_build(args: &BuildArgs, env: &Environment) -> Option<Mode> {
    if args.quiet {
        return None;
    }
    match args.progress {
        // A picture that is drawn again and again would hide them.
        Progress::Auto if args.diagnostics == Diagnostics::Json => Some(Mode::Plain),
        progress => mode_of(progress, env),
    }
}
