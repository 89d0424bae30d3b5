#pragma once
#include <bpf/libbpf.h>
#include <stdnoreturn.h>

// What libbpf 1.1 doesn't know yet, by its numbers in the kernel's ABI.
#define PROG_TYPE_NETFILTER ((enum bpf_prog_type)32)
#define ATTACH_NETFILTER ((enum bpf_attach_type)45)
#define ATTACH_TCX_INGRESS ((enum bpf_attach_type)46)
#define ATTACH_UPROBE_MULTI ((enum bpf_attach_type)48)

// fail ends the program with a message and the error err, negative or an errno.
noreturn void fail(int err, const char *what, const char *name);

// before_load sets what a program's section name doesn't tell libbpf.
void before_load(struct bpf_object *obj);

// attach_all attaches all programs and struct_ops maps of obj, each to what is
// usual for its kind: the cgroup $CGROUP, the interface $IFACE, the own network
// namespace, the map sock_map.
void attach_all(struct bpf_object *obj);

// detach_all takes back what would outlive the process.
void detach_all(void);

// feed_events puts three numbers into the user ring buffer user_events.
void feed_events(struct bpf_object *obj);

// show_events prints what is in the ring buffer or perf buffer called events.
void open_events(struct bpf_object *obj);
void show_events(void);

// show_globals prints the global variables of .bss as "NAME = VALUE".
void show_globals(struct bpf_object *obj);
