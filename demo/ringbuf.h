#pragma once

#define COMM_LEN 16
#define WANTED_COMM "demo-ringbuf"

struct event {
	unsigned int number;
	char comm[COMM_LEN];
};
