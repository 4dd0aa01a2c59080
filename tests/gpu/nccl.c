/* An NCCL that computes nothing: the ranks of a group wait for each other when they join, as in NCCL,
 * and sums are counted and left undone. For driver.c. DRY_NCCL_LOG=FILE gets the counts at exit: sums
 * and bytes of all ranks together, and how often a rank asked for another sum than the others did at
 * the same place (NCCL would hang or mix them up). DRY_NCCL_FAIL=1 lets no rank join. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define MOST_RANKS 16
#define MOST_SUMS 65536
struct id {
  char bytes[128];
};
struct group {
  int number, joined, ranks;
  long long sums[MOST_RANKS];
  size_t counts[MOST_SUMS];
};
struct member {
  struct group *group;
  int rank;
};
static struct group *groups[MOST_RANKS];
static int n_groups;
static long long all_reduces, bytes, mismatches;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static void out(void) {
  const char *p = getenv("DRY_NCCL_LOG");
  FILE *f = p ? fopen(p, "w") : NULL;
  if (!f)
    return;
  fprintf(f, "groups %d\nall_reduces %lld\nall_reduce_bytes %lld\nmismatches %lld\n", n_groups, all_reduces,
          bytes, mismatches);
  fclose(f);
}
__attribute__((constructor)) static void start(void) { atexit(out); }
int ncclGetVersion(int *version) {
  *version = 22704;
  return 0;
}
int ncclGetUniqueId(struct id *id) {
  pthread_mutex_lock(&lock);
  if (n_groups == MOST_RANKS)
    abort();
  struct group *group = calloc(1, sizeof *group);
  groups[n_groups++] = group;
  memset(id, 0, sizeof *id);
  memcpy(id, &group, sizeof group);
  pthread_mutex_unlock(&lock);
  return 0;
}
int ncclCommInitRank(struct member **comm, int ranks, struct id id, int rank) {
  if (getenv("DRY_NCCL_FAIL") || ranks > MOST_RANKS)
    return 2; /* ncclSystemError */
  struct group *group;
  memcpy(&group, &id, sizeof group);
  *comm = malloc(sizeof **comm);
  **comm = (struct member){group, rank};
  pthread_mutex_lock(&lock);
  group->ranks = ranks;
  group->joined++;
  pthread_cond_broadcast(&changed);
  while (group->joined < ranks)
    pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
  return 0;
}
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct member *member,
                  void *stream) {
  static const int widths[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
  struct group *group = member->group;
  pthread_mutex_lock(&lock);
  all_reduces++;
  bytes += (long long)count * widths[type];
  size_t *expected = &group->counts[group->sums[member->rank]++ % MOST_SUMS];
  if (*expected && *expected != count)
    mismatches++;
  *expected = count;
  pthread_mutex_unlock(&lock);
  return 0;
}
int ncclCommDestroy(struct member *member) { return 0; }
int ncclCommAbort(struct member *member) { return 0; }
const char *ncclGetErrorString(int code) { return "dry NCCL"; }
