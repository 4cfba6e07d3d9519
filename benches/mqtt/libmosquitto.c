/* libmosquitto as a contestant. `polled`: one thread, both clients' sockets polled together, publishing straight from the
 * loop, which is the way of using it with the fewest wake-ups, and takes a loop of one's own. `threads`: with the loops that
 * it brings, a thread for each client (mosquitto_loop_start), while the program's own thread publishes. Prints messages,
 * seconds, CPU seconds, p50 and p99 in us.
 *
 * usage: libmosquitto polled|threads publish|through|paced PORT BYTES QOS SECONDS
 */
#define _GNU_SOURCE
#include <mosquitto.h>
#include <poll.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TOPIC "bench/topic"
#define WINDOW 100
#define UNDER_WAY 1000
#define PACE_NS 1000000
#define WARM_UP_NS 300000000
#define MAX_LATENCIES (1 << 20)

enum path { PUBLISH, THROUGH, PACED };

static enum path path;
static uint64_t sent;
/* Counted by the threads of the clients, where they have any. */
static _Atomic uint64_t acknowledged, received;
static _Atomic int subscribed;
static double *latencies;
static _Atomic size_t latency_count;
/* Of UNDER_WAY messages. */
static sem_t room;

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
	sem_post(&room);
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

static uint64_t begin, started, length, cpu, done;

/* Starts the measurement when all is warm; ends the program with its figures when the time is over. */
static void measure(uint64_t time)
{
	uint64_t finished = path == PUBLISH ? acknowledged : received;
	if (!started && time >= begin + WARM_UP_NS) {
		started = time;
		cpu = now(CLOCK_PROCESS_CPUTIME_ID);
		done = finished;
		latency_count = 0;
	}
	if (!started || time < started + length)
		return;
	uint64_t used = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	size_t count = latency_count;
	qsort(latencies, count, sizeof *latencies, ascending);
	double p50 = count ? latencies[count / 2] : 0;
	double p99 = count ? latencies[count * 99 / 100] : 0;
	if (finished == done)
		fprintf(stderr, "stood still: sent %llu, acknowledged %llu, received %llu\n", (unsigned long long)sent,
			(unsigned long long)acknowledged, (unsigned long long)received);
	printf("%llu %f %f %f %f\n", (unsigned long long)(finished - done), (double)(time - started) / 1e9,
	       (double)used / 1e9, p50, p99);
	fflush(stdout);
	_exit(0);
}

struct message {
	char *payload;
	int bytes, qos;
};

static void publish(struct mosquitto *client, const struct message *message)
{
	check(mosquitto_publish(client, NULL, TOPIC, message->bytes, message->payload, message->qos, false), "publish");
	sent++;
}

static void publish_stamped(struct mosquitto *client, const struct message *message)
{
	uint64_t stamp = now(CLOCK_MONOTONIC);
	memcpy(message->payload, &stamp, sizeof stamp);
	publish(client, message);
}

static void poll_them(struct mosquitto **clients, int count, const struct message *message)
{
	uint64_t due = begin;
	for (;;) {
		uint64_t time = now(CLOCK_MONOTONIC), wait = PACE_NS;
		measure(time);
		if (path == PACED) {
			for (; time >= due; due += PACE_NS)
				publish_stamped(clients[0], message);
			wait = due - time;
		} else {
			/* At most a window at once, for QoS 0 is complete as soon as the socket takes it. */
			int burst = WINDOW;
			while (burst-- > 0 && sent - acknowledged < WINDOW && (path == PUBLISH || sent - received < UNDER_WAY))
				publish(clients[0], message);
			if (sent - acknowledged < WINDOW && (path == PUBLISH || sent - received < UNDER_WAY))
				wait = 0;
		}
		turn(clients, count, wait);
	}
}

static void let_them_loop(struct mosquitto **clients, int count, const struct message *message)
{
	for (int at = 0; at < count; at++)
		check(mosquitto_loop_start(clients[at]), "loop");
	for (uint64_t due = begin;;) {
		measure(now(CLOCK_MONOTONIC));
		if (path == PACED) {
			struct timespec until = { (time_t)(due / 1000000000u), (long)(due % 1000000000u) };
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
			publish_stamped(clients[0], message);
			due += PACE_NS;
		} else {
			sem_wait(&room);
			publish(clients[0], message);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc != 7)
		return 2;
	int threads = !strcmp(argv[1], "threads");
	path = !strcmp(argv[2], "publish") ? PUBLISH : !strcmp(argv[2], "through") ? THROUGH : PACED;
	int port = atoi(argv[3]);
	struct message message = { NULL, atoi(argv[4]), atoi(argv[5]) };
	length = strtoull(argv[6], NULL, 10) * 1000000000u;
	message.payload = malloc((size_t)message.bytes);
	memset(message.payload, 'x', (size_t)message.bytes);
	latencies = malloc(MAX_LATENCIES * sizeof *latencies);
	sem_init(&room, 0, UNDER_WAY);
	mosquitto_lib_init();

	struct mosquitto *clients[2];
	int count = 1;
	clients[0] = client("libmosquitto-publisher", port);
	if (path != PUBLISH) {
		clients[1] = client("libmosquitto-subscriber", port);
		count = 2;
		check(mosquitto_subscribe(clients[1], NULL, TOPIC, message.qos), "subscribe");
		while (!subscribed)
			turn(clients, count, 100000000);
	}
	begin = now(CLOCK_MONOTONIC);
	if (threads)
		let_them_loop(clients, count, &message);
	else
		poll_them(clients, count, &message);
}
