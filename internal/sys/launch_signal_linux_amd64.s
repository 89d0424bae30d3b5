#include "textflag.h"

// siginfoHandler writes its siginfo_t, the second argument, to siginfoFD. It
// uses no stack, no g and no errno, so it may run anywhere.
TEXT ·siginfoHandler(SB),NOSPLIT|NOFRAME,$0
	MOVL	$1, AX // write
	MOVL	·siginfoFD(SB), DI
	MOVL	$128, DX
	SYSCALL
	RET

TEXT ·siginfoReturn(SB),NOSPLIT|NOFRAME,$0
	MOVL	$15, AX // rt_sigreturn
	SYSCALL
	INT	$3

// func siginfoEntry() (handler, restorer uintptr)
TEXT ·siginfoEntry(SB),NOSPLIT,$0-16
	LEAQ	·siginfoHandler(SB), AX
	MOVQ	AX, handler+0(FP)
	LEAQ	·siginfoReturn(SB), AX
	MOVQ	AX, restorer+8(FP)
	RET
