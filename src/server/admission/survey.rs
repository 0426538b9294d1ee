//! Visiting every process without waiting for any.

use std::sync::Arc;
use std::time::Duration;

use super::deadline::Deadline;
use super::state::Call;
use super::{Admission, Admitted, Kind, Permit, Target};
use crate::common::pid::ProcessId;
use crate::target::visit::{Visit, Visits};

/// A call that visits one process after another.
///
/// Each [`visit`](Visits::visit) begins a new deadline, which is short. What happens at its end is
/// what happens at any call's: `expire`, which is to have the survey made by another thread. As long as
/// the first call waits, other surveys pass over that process.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    admission: &'a Admission,
    permit: &'a Permit,
}

impl<'a> Survey<'a> {
    /// The survey that holds `permit`, which [`Admission::enter_survey`] gave.
    pub(crate) fn new(admission: &'a Admission, permit: &'a Permit) -> Self {
        Self { admission, permit }
    }
}

impl Visits for Survey<'_> {
    fn visit(&self, process: ProcessId) -> Visit {
        self.admission.visit(self.permit, process)
    }
}

impl Admission {
    /// Asks for a permit for a survey that was begun at `begun`, for a user where that is not the mounter.
    pub(crate) fn enter_survey(
        &self,
        begun: Duration,
        user: Option<u32>,
        expire: impl FnOnce() + Send + 'static,
    ) -> Admitted {
        let mut state = self.state.lock();
        if state.serving >= self.limits.permits || !state.has_room_for(user, &self.limits) {
            return Admitted::Later;
        }
        state.serving += 1;
        let mut call = self.survey_call(begun, user, expire);
        call.on_serving_thread = true;
        Admitted::Now(self.admit(&mut state, call))
    }

    /// As [`queue`](Self::queue), for a survey that was begun at `begun`; false where the queue has no place.
    #[must_use = "nobody answers what was not queued"]
    pub(crate) fn queue_survey(
        self: &Arc<Self>,
        begun: Duration,
        user: Option<u32>,
        expire: impl FnOnce() + Send + 'static,
        job: impl FnOnce(&Permit) + Send + 'static,
    ) -> bool {
        let call = self.survey_call(begun, user, expire);
        let mut state = self.state.lock();
        let has_place = state.has_place_for(user, 0, &self.limits);
        if has_place {
            let job = |permit: &Permit| {
                job(permit);
                true
            };
            self.enqueue(&mut state, call, 0, Box::new(job));
        }
        has_place
    }

    /// How long a request waits for its answer.
    pub(crate) fn deadline(&self) -> Duration {
        self.limits.deadline
    }

    fn survey_call(
        &self,
        begun: Duration,
        user: Option<u32>,
        expire: impl FnOnce() + Send + 'static,
    ) -> Call {
        Call {
            target: None,
            user,
            kind: Kind::Survey,
            reduced: false,
            begun,
            deadline: Deadline::new(begun, self.limits.deadline),
            thread: None,
            on_serving_thread: false,
            expire: Some(Box::new(expire)),
        }
    }

    fn visit(&self, permit: &Permit, process: ProcessId) -> Visit {
        let now = self.clock.now();
        let mut target = Target::numbered(process);
        loop {
            let mut state = self.state.lock();
            let waits = |call: &Call| {
                call.kind == Kind::Survey && call.target.is_some_and(|of| of.is(target))
            };
            let is_stuck = state.stuck(waits) > 0;
            let Some(call) = state.inside.get_mut(&permit.0) else {
                return Visit::Stop;
            };
            if call.expire.is_none() {
                return Visit::Stop;
            }
            if now >= call.begun + self.limits.survey {
                return Visit::Skip;
            }
            if !is_stuck {
                call.target = Some(target);
                call.deadline = Deadline::new(now, self.limits.stall);
                return Visit::Enter;
            }
            if target.instance.is_some() {
                return Visit::Skip;
            }
            // Does somebody wait for this one, or for another process that had its number?
            drop(state);
            target.instance = self.tasks.instance(process).or(Some(u64::MAX));
        }
    }
}
