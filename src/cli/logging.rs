//! Where the log goes.

/// To the terminal: what fails, each kind of failure once a minute, or with `debug` all there is to tell.
pub(super) fn to_stderr(debug: bool) {
    // `fuser` tells at the level of info what we tell better.
    let filter = if debug { "debug" } else { "info,fuser=warn" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();
}

/// A daemon has no terminal: it tells the system's log, if there is one.
pub(super) fn to_syslog() {
    let _ = syslog::init_unix(syslog::Facility::LOG_DAEMON, log::LevelFilter::Info);
    // Its standard error leads nowhere.
    std::panic::set_hook(Box::new(|info| log::error!("{info}")));
}
