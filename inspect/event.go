package inspect

import "github.com/bpfbroker/bpfbroker/abi"

// perfEvent finds out what event is opened.
func (i *Inspector) perfEvent() {
	q, e := i.q, &i.f.Event
	if sample, bits := q.Field("sample_type"), q.Field("bits"); sample&abi.PerfSampleCallchain != 0 {
		e.KernelStacks = bits&(abi.PerfBitExcludeKernel|abi.PerfBitExcludeCallchainKernel) == 0
	}
	probe := abi.Probe(q.Field("probe"))
	switch probe {
	case abi.Kprobe:
		e.Type, e.Offset = "kprobe", clamped(q.Field("config2"))
		if q.Buffer("kprobe_func") == nil {
			i.unknown("perf_event.function", "it is named by its address")
			e.Offset = 0
		} else {
			e.Function = i.pointed("kprobe_func", "perf_event.function")
		}
	case abi.Uprobe:
		e.Type, e.Offset = "uprobe", clamped(q.Field("config2"))
		e.File, e.FileShared = i.file("uprobe_path", "perf_event.file", "perf_event.file_shared")
	default:
		e.Type = q.Row.Field("type").Values.Name(q.Field("type"))
		if e.Type == "tracepoint" && i.wants("perf_event.tracepoint") {
			var err error
			e.Tracepoint, err = i.at.Tracepoint(q.Field("config"))
			i.found("perf_event.tracepoint", err)
		}
	}
	i.eventPID()
}

// eventPID finds out whose the event is: 0 is the caller, -1 all.
func (i *Inspector) eventPID() {
	q, e := i.q, &i.f.Event
	pid := q.Row.Field("pid")
	if !pid.Live(q.Attr) {
		const why = "the event is of a cgroup's processes"
		e.PID = -1
		i.unknown("perf_event.pid", why)
		i.unknown("perf_event.pid_own", why)
		return
	}
	switch e.PID = int64(int32(pid.Uint(q.Attr))); {
	case e.PID == 0:
		e.PIDOwn = true
	case e.PID > 0 && i.wants("perf_event.pid_own"):
		own, err := i.at.PIDOwn(uint32(e.PID))
		i.found("perf_event.pid_own", err)
		e.PIDOwn = own && err == nil
	}
}
