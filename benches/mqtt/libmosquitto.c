/* libmosquitto as a contestant: one thread, both clients' sockets polled together, publishing straight from the loop,
 * which is the way of using it with the fewest wake-ups. Prints messages, seconds, CPU seconds, p50 and p99 in us.
 *
 * usage: libmosquitto publish|through|paced PORT BYTES QOS SECONDS
 */
#define _GNU_SOURCE
#include <mosquitto.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TOPIC "bench/topic"
#define WINDOW 100
#define UNDER_WAY 1000
#define PACE_NS 1000000
#define WARM_UP_NS 300000000
#define MAX_LATENCIES (1 << 20)

enum path { PUBLISH, THROUGH, PACED };

static enum path path;
static uint64_t sent, acknowledged, received;
static int subscribed;
static double *latencies;
static size_t latency_count;

static uint64_t now(clockid_t clock)
{
	struct timespec ts;
	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void check(int result, const char *what)
{
	if (result != MOSQ_ERR_SUCCESS) {
		fprintf(stderr, "%s: %s\n", what, mosquitto_strerror(result));
		exit(1);
	}
}

static void on_publish(struct mosquitto *client, void *data, int id)
{
	(void)client, (void)data, (void)id;
	acknowledged++;
}

static void on_subscribe(struct mosquitto *client, void *data, int id, int count, const int *granted)
{
	(void)client, (void)data, (void)id, (void)count, (void)granted;
	subscribed = 1;
}

static void on_message(struct mosquitto *client, void *data, const struct mosquitto_message *message)
{
	(void)client, (void)data;
	received++;
	if (path == PACED && latency_count < MAX_LATENCIES) {
		uint64_t stamp;
		memcpy(&stamp, message->payload, sizeof stamp);
		latencies[latency_count++] = (double)(now(CLOCK_MONOTONIC) - stamp) / 1000.0;
	}
}

static struct mosquitto *client(const char *id, int port)
{
	struct mosquitto *client = mosquitto_new(id, true, NULL);
	mosquitto_int_option(client, MOSQ_OPT_TCP_NODELAY, path == PACED);
	mosquitto_max_inflight_messages_set(client, WINDOW);
	mosquitto_publish_callback_set(client, on_publish);
	mosquitto_subscribe_callback_set(client, on_subscribe);
	mosquitto_message_callback_set(client, on_message);
	check(mosquitto_connect(client, "127.0.0.1", port, 60), "connect");
	return client;
}

/* Waits until a socket has something, or `nanoseconds` have passed, and lets the library work. */
static void turn(struct mosquitto **clients, int count, uint64_t nanoseconds)
{
	struct pollfd fds[2];
	struct timespec limit = { 0, (long)nanoseconds };
	for (int at = 0; at < count; at++) {
		fds[at].fd = mosquitto_socket(clients[at]);
		fds[at].events = POLLIN | (mosquitto_want_write(clients[at]) ? POLLOUT : 0);
	}
	ppoll(fds, (nfds_t)count, &limit, NULL);
	for (int at = 0; at < count; at++) {
		if (fds[at].revents & POLLIN)
			check(mosquitto_loop_read(clients[at], 100), "read");
		if (fds[at].revents & POLLOUT)
			check(mosquitto_loop_write(clients[at], 1), "write");
	}
}

static int ascending(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return (left > right) - (left < right);
}

int main(int argc, char **argv)
{
	if (argc != 6)
		return 2;
	path = !strcmp(argv[1], "publish") ? PUBLISH : !strcmp(argv[1], "through") ? THROUGH : PACED;
	int port = atoi(argv[2]), bytes = atoi(argv[3]), qos = atoi(argv[4]);
	uint64_t length = strtoull(argv[5], NULL, 10) * 1000000000u;
	char *payload = malloc((size_t)bytes);
	memset(payload, 'x', (size_t)bytes);
	latencies = malloc(MAX_LATENCIES * sizeof *latencies);
	mosquitto_lib_init();

	struct mosquitto *clients[2];
	int count = 1;
	clients[0] = client("libmosquitto-publisher", port);
	if (path != PUBLISH) {
		clients[1] = client("libmosquitto-subscriber", port);
		count = 2;
		check(mosquitto_subscribe(clients[1], NULL, TOPIC, qos), "subscribe");
		while (!subscribed)
			turn(clients, count, 100000000);
	}
	uint64_t begin = now(CLOCK_MONOTONIC), started = 0, cpu = 0, done = 0, due = begin;
	for (;;) {
		uint64_t time = now(CLOCK_MONOTONIC);
		uint64_t *finished = path == PUBLISH ? &acknowledged : &received;
		if (!started && time >= begin + WARM_UP_NS) {
			started = time;
			cpu = now(CLOCK_PROCESS_CPUTIME_ID);
			done = *finished;
			latency_count = 0;
		}
		if (started && time >= started + length) {
			uint64_t used = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
			qsort(latencies, latency_count, sizeof *latencies, ascending);
			double p50 = latency_count ? latencies[latency_count / 2] : 0;
			double p99 = latency_count ? latencies[latency_count * 99 / 100] : 0;
			if (*finished == done)
				fprintf(stderr, "stood still: sent %llu, acknowledged %llu, received %llu\n",
					(unsigned long long)sent, (unsigned long long)acknowledged,
					(unsigned long long)received);
			printf("%llu %f %f %f %f\n", (unsigned long long)(*finished - done),
			       (double)(time - started) / 1e9, (double)used / 1e9, p50, p99);
			return 0;
		}
		uint64_t wait = 1000000;
		if (path == PACED) {
			while (time >= due) {
				uint64_t stamp = now(CLOCK_MONOTONIC);
				memcpy(payload, &stamp, sizeof stamp);
				check(mosquitto_publish(clients[0], NULL, TOPIC, bytes, payload, qos, false), "publish");
				due += PACE_NS;
			}
			wait = due - time;
		} else {
			/* At most a window at once, for QoS 0 is complete as soon as the socket takes it. */
			int burst = WINDOW;
			while (burst-- > 0 && sent - acknowledged < WINDOW &&
			       (path == PUBLISH || sent - received < UNDER_WAY)) {
				check(mosquitto_publish(clients[0], NULL, TOPIC, bytes, payload, qos, false), "publish");
				sent++;
			}
			if (sent - acknowledged < WINDOW && (path == PUBLISH || sent - received < UNDER_WAY))
				wait = 0;
		}
		turn(clients, count, wait);
	}
}
