/* Entries of the 256 interrupt vectors, the guarded call that survives an exception, and the way down to ring 3. The frame they build is
   struct Frame of traps.h. */
.text
#ifdef __x86_64__
#define WORD .quad
.code64
#else
#define WORD .long
.code32
#endif

#ifdef __x86_64__
#define PUSH pushq
#else
#define PUSH pushl
#endif

.align 16
.globl trap_stubs
trap_stubs:
.set number, 0
.rept 256
.align 16
  .if !(number == 8 || (number >= 10 && number <= 14) || number == 17 || number == 21)
    PUSH $0
  .endif
    PUSH $number
    jmp common_trap
.set number, number + 1
.endr

#ifdef __x86_64__
common_trap:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $~15, %rsp
    call handle_trap
    mov %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

/* bool guarded_call(function, argument): true when an exception ended the call. */
.globl guarded_call, guarded_escape
guarded_call:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    pushq guarded_stack(%rip)
    pushfq
    sub $8, %rsp
    mov %rsp, guarded_stack(%rip)
    mov %rdi, %rax
    mov %rsi, %rdi
    call *%rax
    xor %eax, %eax
    jmp 1f
guarded_escape:
    mov $0x10, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov %eax, %es
    mov guarded_stack(%rip), %rsp
    mov $1, %eax
1:  add $8, %rsp
    popfq
    popq guarded_stack(%rip)
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

/* void enter_user(function, argument, stack, flags): ring 3, 64-bit; a return from the function shows as USER_RETURN. */
.globl enter_user, user_return
enter_user:
    mov $0x23, %eax
    mov %eax, %ds
    mov %eax, %es
    pushq $0x23
    push %rdx
    push %rcx
    pushq $0x2b
    push %rdi
    mov %rsi, %rdi
    xor %ebp, %ebp
    iretq
user_return:
    ud2                         /* handle_trap makes it USER_RETURN */
#else
common_trap:
    pusha
    push %ds
    push %es
    push %fs
    push %gs
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    cld
    mov %esp, %ebp
    and $~15, %esp
    sub $12, %esp
    push %ebp
    call handle_trap
    /* An escape needs no IRET (a host's KVM may not emulate it), but for the NMI, which stays blocked without one. */
    cmpl $guarded_escape, 56(%ebp)
    jne 1f
    cmpl $2, 48(%ebp)
    jne guarded_escape
1:  mov %ebp, %esp
    pop %gs
    pop %fs
    pop %es
    pop %ds
    popa
    add $8, %esp
    iretl

.globl guarded_call, guarded_escape
guarded_call:
    push %ebx
    push %ebp
    push %esi
    push %edi
    mov 20(%esp), %eax
    mov 24(%esp), %edx
    pushl guarded_stack
    pushfl
    mov %esp, guarded_stack
    push %edx
    push %edx
    push %edx
    call *%eax
    xor %eax, %eax
    add $12, %esp
    jmp 1f
guarded_escape:
    mov $0x10, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    mov guarded_stack, %esp
    mov $1, %eax
1:  popfl
    popl guarded_stack
    pop %edi
    pop %esi
    pop %ebp
    pop %ebx
    ret

/* void enter_user(function, argument, stack, flags) */
.globl enter_user, user_return
enter_user:
    mov 4(%esp), %ecx
    mov 8(%esp), %edx
    mov 12(%esp), %ebx
    mov 16(%esp), %esi
    sub $4, %ebx
    mov %edx, (%ebx)
    sub $4, %ebx
    movl $user_return, (%ebx)
    mov $0x23, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    pushl $0x23
    push %ebx
    push %esi
    pushl $0x1b
    push %ecx
    iretl
user_return:
    ud2                         /* handle_trap makes it USER_RETURN */
#endif

.data
.align 8
.globl guarded_stack
guarded_stack: WORD 0
