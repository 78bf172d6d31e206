package indexer

import "container/heap"

// urgency is who waits for a task.
type urgency int

const (
	fresh     urgency = iota // somebody has just made one of its changes
	patient                  // all of them are backfill
	urgencies                // of a generation that does not answer every task is patient, whatever its changes are
)

// need is what a task can't go on without.
type need int

const (
	needStore   need = iota // deletes and changes of access, which pass by whatever waits for the model
	needLetters             // something of it was rejected, and has to be said
	needModel
	needs
)

func (t *task) urgency() urgency {
	if t.fresh {
		return fresh
	}
	return patient
}

func (t *task) need() need {
	switch {
	case len(t.letters) > 0:
		return needLetters
	case t.content == nil || t.content.Document == nil:
		return needStore
	}
	return needModel
}

// queue holds tasks whose documents' turn it is. The first is the one that has waited longest.
type queue struct {
	tasks []*task // a heap by turn; each knows its place
}

func (q *queue) add(t *task) {
	t.queue = q
	heap.Push(q, t)
}

func (q *queue) remove(t *task) {
	heap.Remove(q, t.place)
	t.queue = nil
}

// first is the task that has waited longest; nil: none waits.
func (q *queue) first() *task {
	if len(q.tasks) == 0 {
		return nil
	}
	return q.tasks[0]
}

// Len is how many wait. It and what follows make a [heap.Interface].
func (q *queue) Len() int { return len(q.tasks) }

// Less tells which of two has waited longer.
func (q *queue) Less(i, j int) bool { return q.tasks[i].turn < q.tasks[j].turn }

// Swap changes two places.
func (q *queue) Swap(i, j int) {
	q.tasks[i], q.tasks[j] = q.tasks[j], q.tasks[i]
	q.tasks[i].place, q.tasks[j].place = i, j
}

// Push puts a task at the end.
func (q *queue) Push(x any) {
	t := x.(*task)
	t.place = len(q.tasks)
	q.tasks = append(q.tasks, t)
}

// Pop takes the task at the end.
func (q *queue) Pop() any {
	n := len(q.tasks) - 1
	t := q.tasks[n]
	q.tasks[n] = nil
	q.tasks = q.tasks[:n]
	if n == 0 {
		q.tasks = nil // a backlog that is over leaves nothing
	}
	return t
}
